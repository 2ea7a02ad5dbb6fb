// Whether two ranks have the same weights, bit by bit.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <tuple>

#include "model/checkpoint/weights.h"

namespace lorikeet::tests {

template <class A, class B>
bool same(const A& a, const B& b) {
  return std::equal(std::begin(a), std::end(a), std::begin(b), std::end(b));
}

inline void expect_same(const kernels::DenseWeight& a, const kernels::DenseWeight& b) {
  ASSERT_EQ(std::tuple(a.n, a.k, a.dtype), std::tuple(b.n, b.k, b.dtype));
  const size_t bytes = static_cast<size_t>(a.n) * static_cast<size_t>(a.k) * kernels::size_of(a.dtype);
  EXPECT_TRUE(std::equal(static_cast<const uint8_t*>(a.data), static_cast<const uint8_t*>(a.data) + bytes,
                         static_cast<const uint8_t*>(b.data)));
}

inline void expect_same(const model::LinearWeights& a, const model::LinearWeights& b) {
  EXPECT_EQ(a.bias, b.bias);
  const auto x = a.int4(), y = b.int4();
  ASSERT_EQ(x.has_value(), y.has_value());
  if (!x) return expect_same(std::get<kernels::DenseWeight>(a.weight), std::get<kernels::DenseWeight>(b.weight));
  EXPECT_EQ(std::tuple(x->n, x->k, x->x_size), std::tuple(y->n, y->k, y->x_size));
  EXPECT_TRUE(same(x->q, y->q) && same(x->run_begin, y->run_begin) && same(x->scale, y->scale));
  EXPECT_TRUE(same(x->zero, y->zero) && same(x->permutation, y->permutation));
}

inline void expect_same(const model::RankWeights& a, const model::RankWeights& b) {
  expect_same(a.embedding, b.embedding);
  expect_same(a.lm_head, b.lm_head);
  EXPECT_EQ(a.final_norm, b.final_norm);
  EXPECT_EQ(a.bytes, b.bytes);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_EQ(a.layers[i].input_norm, b.layers[i].input_norm);
    EXPECT_EQ(a.layers[i].post_attention_norm, b.layers[i].post_attention_norm);
    EXPECT_EQ(a.layers[i].q_norm, b.layers[i].q_norm);
    EXPECT_EQ(a.layers[i].k_norm, b.layers[i].k_norm);
    for (const model::Projection p : model::kProjections) expect_same(a.layers[i].at(p), b.layers[i].at(p));
  }
}

}  // namespace lorikeet::tests
