#include "kernels/query_chunk.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace ssra {

namespace {

constexpr double kFailure = 1e-9;           // see MiningIndex::mine
constexpr int64_t kBlockBytes = 512 << 10;  // half of a 1 MiB second-level cache
constexpr int64_t kMostPanelsPerBlock = 20;
constexpr int64_t kFloatsPerLine = 16;

}  // namespace

QueryChunk::Query::Query(int64_t wanted, std::span<const int64_t> banned_ids)
    : best(wanted), banned(banned_ids.begin(), banned_ids.end()) {
  std::sort(banned.begin(), banned.end());
}

QueryChunk::Tile::Tile() {
  std::fill_n(needed, kQueryTile, std::numeric_limits<float>::infinity());
}

QueryChunk::QueryChunk(const MiningIndex& index, const Matrix<const float>& queries,
                       const MiningRules& rules, int64_t k, int64_t first, int64_t last)
    : index_(index),
      queries_(queries),
      rules_(rules),
      k_(k),
      first_(first),
      count_(last - first),
      groups_((index.d_ + kGroup - 1) / kGroup),
      wanted_(static_cast<size_t>(k + rules.skip_top)),
      pool_size_(std::max<size_t>(256, 4 * wanted_)),
      pool_room_(pool_size_ + kPanel) {
  const double pairs = static_cast<double>(queries.rows) * static_cast<double>(index.size() + 1);
  deviation_ = deviation(index.d_, pairs, kFailure);
  rounding_ = (static_cast<double>(index.d_) / 16 + 32) * 0x1p-23;
  underflow_ = index.metric_ == Metric::kCosine ? 1e-27 : 1e-36;

  const auto tiles = static_cast<size_t>((count_ + kQueryTile - 1) / kQueryTile);
  tiles_.resize(tiles);
  const int64_t bytes = static_cast<int64_t>(tiles) * groups_ * kQueryTile * kGroup;
  quantized_ = allocate_bytes(bytes);
  std::memset(quantized_.get(), 0, static_cast<size_t>(bytes));
  units_.resize(static_cast<size_t>(count_ * index.d_));
  pools_.resize(static_cast<size_t>(count_) * pool_room_);
  by_query_.reserve(static_cast<size_t>(count_));
  for (int64_t q = 0; q < count_; ++q) {
    by_query_.emplace_back(static_cast<int64_t>(wanted_), rules.banned[first + q]);
    quantize(q);
  }
}

void QueryChunk::quantize(int64_t q) {
  const int64_t d = index_.d_;
  const Isa& isa = index_.isa_;
  const Dither& dither = index_.panels_.query_dither();
  const std::vector<float>& draws = index_.panels_.dither().draws();
  const float* row = queries_.row(first_ + q);
  const RowSummary summary = isa.summarize(row, d);
  const double by = divisor(index_.metric_, std::sqrt(summary.squared_norm));
  const Rounded about = rounded(summary, d, dither, by);

  float* unit = units_.data() + q * d;
  for (int64_t j = 0; j < d; ++j)
    unit[j] = static_cast<float>(static_cast<double>(row[j]) / by);

  std::vector<uint8_t> bytes(static_cast<size_t>(d));
  isa.quantize(row, d, about.inverse, dither.shifts(), bytes.data());
  const int64_t lane = q % kQueryTile;
  int8_t* out = tile_bytes(q / kQueryTile) + lane * kGroup;
  int64_t sum = 0;
  double drawn = 0;  // u.(Q - v)
  for (int64_t j = 0; j < d; ++j) {
    const auto at = static_cast<size_t>(j);
    const int64_t value = bytes[at] - dither.offset();
    out[j / kGroup * kQueryTile * kGroup + j % kGroup] = static_cast<int8_t>(value);
    sum += value;
    drawn += static_cast<double>(draws[at]) *
             (static_cast<double>(value) - static_cast<double>(dither.draws()[at]));
  }

  Tile& tile = tile_of(q);
  tile.norm[lane] = about.norm;
  tile.step[lane] = about.step;
  tile.needed[lane] = rules_.min_score;
  tile.limit[lane] = rules_.upper_limit(first_ + q);
  tile.corrections[lane] =
      static_cast<int32_t>(-index_.panels_.dither().offset() * sum - std::llround(drawn));
}

namespace {

bool below(const Waiting& a, const Waiting& b) {
  return a.upper < b.upper;
}

// The approximate score, in steps of the query, that this score or a lower one may have.
float in_steps(float score, double margin, double step) {
  return static_cast<float>((static_cast<double>(score) + margin) / step);
}

}  // namespace

// The error is that of chance (see Dither) and that of float32 sums.
QueryChunk::Window QueryChunk::open_window(const Tile& tile, double step, double length) const {
  Window window;
  for (int64_t lane = 0; lane < kQueryTile; ++lane) {
    const double of_documents = step * tile.norm[lane];
    const double of_query = tile.step[lane] * length;
    const double error = deviation_ * std::sqrt(of_documents * of_documents + of_query * of_query) +
                         rounding_ * tile.norm[lane] * length + underflow_;
    window.error[lane] = static_cast<float>(error);
    window.low[lane] = in_steps(tile.needed[lane], -error, tile.step[lane]);
    window.high[lane] = in_steps(tile.limit[lane], error, tile.step[lane]);
  }
  return window;
}

void QueryChunk::search() {
  const Panels& panels = index_.panels_;
  const int64_t panel_bytes = groups_ * kPanel * kGroup;
  const int64_t block = std::clamp<int64_t>(kBlockBytes / panel_bytes, 1, kMostPanelsPerBlock);
  for (int64_t begin = 0; begin < panels.count(); begin += block) {
    const int64_t end = std::min(panels.count(), begin + block);
    double step = 0;
    double length = 0;
    for (int64_t panel = begin; panel < end; ++panel) {
      step = std::max(step, panels.largest_step(panel));
      length = std::max(length, panels.largest_length(panel));
    }
    for (size_t t = 0; t < tiles_.size(); ++t)
      screen(static_cast<int64_t>(t), begin, end, open_window(tiles_[t], step, length));
  }
  for (int64_t q = 0; q < count_; ++q)
    settle(q);
}

void QueryChunk::screen(int64_t t, int64_t begin, int64_t end, Window window) {
  const Tile& tile = tiles_[static_cast<size_t>(t)];
  const int8_t* queries = tile_bytes(t);
  const int64_t lanes = std::min(kQueryTile, count_ - t * kQueryTile);
  Hits hits;
  for (int64_t panel = begin; panel < end; ++panel) {
    index_.isa_.screen(index_.panels_.bytes(panel), index_.panels_.steps(panel),
                       index_.panels_.shifts(panel), queries, tile.corrections, groups_, window.low,
                       window.high, hits);
    const uint64_t present = index_.panels_.present(panel);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const uint64_t mask = hits.masks[lane] & present;
      if (mask == 0) [[likely]]
        continue;
      const float needed = tile.needed[lane];
      collect(t * kQueryTile + lane, panel, mask, hits.values[lane], window.error[lane]);
      if (tile.needed[lane] != needed)
        window.low[lane] =
            in_steps(tile.needed[lane], -static_cast<double>(window.error[lane]), tile.step[lane]);
    }
  }
}

void QueryChunk::collect(int64_t q, int64_t panel, uint64_t mask, const float* values,
                         float error) {
  Query& query = of(q);
  const auto step = static_cast<float>(tile_of(q).step[q % kQueryTile]);
  const float least = needed(q);
  Waiting* end = pool(q).data() + query.waiting;
  for (; mask != 0; mask &= mask - 1) {
    const int64_t i = std::countr_zero(mask);
    const int64_t position = panel * kPanel + i;
    if (!query.banned.empty() &&
        std::binary_search(query.banned.begin(), query.banned.end(), index_.id(position)))
      continue;
    const float score = values[i] * step;
    *end = {score - error, score + error, static_cast<uint32_t>(position)};
    end += score + error >= least;
  }
  query.waiting = static_cast<size_t>(end - pool(q).data());
  if (query.waiting >= pool_size_)
    prune(q);
}

// Raises what is needed to what enough of those that are surely allowed will reach.
void QueryChunk::prune(int64_t q) {
  needed(q) = std::max(needed(q), reached_by(wanted_, pool(q), needed(q), limit(q)));
  of(q).waiting = keep_reaching(needed(q), pool(q));
  if (of(q).waiting > pool_size_ / 4 * 3)
    settle(q);
}

void QueryChunk::settle(int64_t q) {
  std::span<Waiting> heap = pool(q);
  std::make_heap(heap.begin(), heap.end(), below);
  // Rows are fetched while those before them are scored: they lie anywhere in memory.
  Batch batch = next_batch(heap, needed(q));
  while (batch.count > 0) {
    const Batch following = next_batch(heap, needed(q));
    score(q, batch);
    needed(q) = std::max(needed(q), of(q).best.threshold());
    batch = following;
  }
  of(q).waiting = 0;
}

// Takes the best bounds out of the heap, as long as they reach what is needed.
QueryChunk::Batch QueryChunk::next_batch(std::span<Waiting>& heap, float needed) const {
  Batch batch;
  while (batch.count < kRowsAtOnce && !heap.empty() && heap.front().upper >= needed) {
    const uint32_t position = heap.front().position;
    std::pop_heap(heap.begin(), heap.end(), below);
    heap = heap.first(heap.size() - 1);
    const float* row = index_.row(position);
    for (int64_t j = 0; j < index_.d_; j += kFloatsPerLine)
      __builtin_prefetch(row + j);
    batch.positions[batch.count] = position;
    batch.rows[batch.count++] = row;
  }
  std::fill(batch.rows + batch.count, batch.rows + kRowsAtOnce, batch.rows[0]);
  return batch;
}

void QueryChunk::score(int64_t q, const Batch& batch) {
  float products[kRowsAtOnce];
  index_.isa_.inner_products(units_.data() + q * index_.d_, batch.rows, index_.d_, products);
  for (int64_t i = 0; i < batch.count; ++i) {
    const uint32_t position = batch.positions[i];
    const float score = products[i] * index_.panels_.factor(position);
    if (score >= rules_.min_score && score <= limit(q))
      of(q).best.offer({score, index_.id(position)});
  }
}

void QueryChunk::write(const Matrix<float>& scores, const Matrix<int64_t>& ids,
                       std::span<int64_t> counts) {
  for (int64_t q = 0; q < count_; ++q)
    counts[static_cast<size_t>(first_ + q)] =
        of(q).best.write(rules_.skip_top, k_, scores.row(first_ + q), ids.row(first_ + q));
}

}  // namespace ssra
