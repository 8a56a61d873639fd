// A run of queries that go through all panels together.
#pragma once

#include <vector>

#include "kernels/best.h"
#include "kernels/mining.h"
#include "kernels/pool.h"

namespace ssra {

// Panels are taken in blocks that fit in the second-level cache; each block meets all queries of
// the chunk, tile by tile. The screen bounds every score from below and from above. A document
// whose upper bound reaches what the query needs - the k-th best lower bound so far, or the lowest
// score allowed - waits in the query's pool; a full pool is pruned by what is needed by then. In
// the end the pool is settled: best bounds first, products are computed in float32 until no bound
// left reaches the k-th best of them. Where bounds are so loose that pruning leaves the pool half
// full, it is settled at once; so its size is fixed, and a hard case costs time, not memory.
class QueryChunk {
 public:
  QueryChunk(const MiningIndex& index, const Matrix<const float>& queries, const MiningRules& rules,
             int64_t k, int64_t first, int64_t last);

  void search();
  void write(const Matrix<float>& scores, const Matrix<int64_t>& ids, std::span<int64_t> counts);

 private:
  // Documents to be scored together.
  struct Batch {
    int64_t count = 0;
    uint32_t positions[kRowsAtOnce];
    const float* rows[kRowsAtOnce] = {};
  };
  struct Query {
    Query(int64_t wanted, std::span<const int64_t> banned_ids);

    Best best;
    std::vector<int64_t> banned;  // sorted
    size_t waiting = 0;           // in the query's pool
  };
  // What the screen needs of eight queries, by column.
  struct Tile {
    Tile();

    double norm[kQueryTile] = {};
    double step[kQueryTile] = {};
    float needed[kQueryTile];      // lowest score of use; infinite for columns of no query
    float limit[kQueryTile] = {};  // highest score allowed
    int32_t corrections[kQueryTile] = {};
  };
  // The same for the block of panels at hand.
  struct Window {
    float error[kQueryTile];  // how far scores may lie from approximate ones
    float low[kQueryTile];    // limits of approximate scores, in steps of the query
    float high[kQueryTile];
  };

  void quantize(int64_t q);
  Window open_window(const Tile& tile, double step, double length) const;
  void screen(int64_t t, int64_t begin, int64_t end, Window window);
  void collect(int64_t q, int64_t panel, uint64_t mask, const float* values, float error);
  void prune(int64_t q);
  void settle(int64_t q);
  Batch next_batch(std::span<Waiting>& heap, float needed) const;
  void score(int64_t q, const Batch& batch);

  float limit(int64_t q) { return tile_of(q).limit[q % kQueryTile]; }
  std::span<Waiting> pool(int64_t q) {
    return {pools_.data() + static_cast<size_t>(q) * pool_room_, of(q).waiting};
  }
  Query& of(int64_t q) { return by_query_[static_cast<size_t>(q)]; }
  Tile& tile_of(int64_t q) { return tiles_[static_cast<size_t>(q / kQueryTile)]; }
  int8_t* tile_bytes(int64_t t) {
    return reinterpret_cast<int8_t*>(quantized_.get()) + t * groups_ * kQueryTile * kGroup;
  }
  float& needed(int64_t q) { return tile_of(q).needed[q % kQueryTile]; }

  const MiningIndex& index_;
  const Matrix<const float>& queries_;
  const MiningRules& rules_;
  const int64_t k_;
  const int64_t first_;
  const int64_t count_;
  const int64_t groups_;
  const size_t wanted_;     // survivors to keep: k and those to skip
  const size_t pool_size_;  // a pool is pruned when it holds as many
  const size_t pool_room_;  // one more panel may come before that is seen
  double deviation_;        // of a sum of errors: see open_window()
  double rounding_;         // of float32 sums, relative to the lengths of the two vectors
  double underflow_;        // of float32 products, absolute

  std::vector<Query> by_query_;
  std::vector<Waiting> pools_;
  std::vector<Tile> tiles_;
  Bytes quantized_;            // signed: [tile][group][query][4]
  std::vector<float> lowers_;  // scratch of prune()
  std::vector<float> units_;   // the vectors that are scored: unit vectors for the cosine
};

}  // namespace ssra
