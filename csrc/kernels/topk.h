// Exact inner-product top-k with banned ids.
#pragma once

#include "support/spans.h"

namespace ssra {

// For each query, the k documents of largest inner product that are not banned for it, best first,
// equal scores by lowest id. Where fewer than k documents survive, the rest of the row is id -1 and
// score -infinity.
//
// queries [Q, d], documents [N, d]; banned: Q lists of document ids in any order, ids of documents
// that are not there are allowed. scores and ids: [Q, k], contiguous. A score depends on its two
// rows only, not on threads or on the rows around them.
void exact_topk(const Matrix<const float>& queries, const Matrix<const float>& documents,
                const Ragged& banned, int threads, const Matrix<float>& scores,
                const Matrix<int64_t>& ids);

}  // namespace ssra
