// What a constrained draw costs a rank's host: the mask of one row of logits, along random walks through answers, and
// compiling. The published Qwen2 vocabulary is used where it is at hand (../shared), else the example model's.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/sampling/token_constraint.h"
#include "model/grammar/grammar.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {
namespace {

constexpr int32_t kVocabSize = 152'064;  // logits of Qwen2.5-14B
constexpr int32_t kEnd = kVocabSize - 1;
constexpr int kMostTokens = 200;  // of a walk

const std::filesystem::path kSource = LORIKEET_SOURCE_DIR;

template <class T>
T or_exit(Result<T> result) {
  if (result) return *std::move(result);
  std::fprintf(stderr, "%s\n", result.error().message.c_str());
  std::exit(1);
}

std::shared_ptr<GrammarCompiler> compiler(size_t cache_bytes) {
  static const auto kTokenizer = [] {
    const auto published = kSource / "../shared/fixtures/qwen2-tokenizer";
    const bool is_there = std::filesystem::exists(published);
    return or_exit(Tokenizer::load(is_there ? published : kSource / "examples/models/tiny-qwen2-gptq-int4"));
  }();
  return or_exit(make_grammar_compiler(*kTokenizer, kVocabSize, cache_bytes));
}

const std::vector<GrammarSpec>& specs() {
  static const std::vector<GrammarSpec> kSpecs = {
      {GrammarKind::json_schema, R"({"type": "object", "properties": {"name": {"type": "string"},
        "age": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}, "ok": {"type": "boolean"}},
        "required": ["name", "age", "tags", "ok"], "additionalProperties": false})"},
      {GrammarKind::json_schema, R"({"type": "object"})"},
      {GrammarKind::json_schema, R"({"type": "array", "items": {"type": "object", "properties": {
        "id": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}, "kind": {"enum": ["a", "b", "c"]}},
        "required": ["id", "kind"], "additionalProperties": false}})"}};
  return kSpecs;
}

// The first token that the mask allows from a place that chance picks; none: -1.
int32_t draw(const std::vector<uint32_t>& allowed, std::mt19937& random) {
  const auto from = static_cast<int32_t>(random() % kVocabSize);
  for (int32_t i = 0; i < kVocabSize; ++i) {
    const int32_t id = (from + i) % kVocabSize;
    if ((allowed[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) return id;
  }
  return -1;
}

void mask(benchmark::State& state) {
  const auto grammar = or_exit(compiler(kGrammarCacheBytes)->compile(specs()[static_cast<size_t>(state.range(0))]));
  std::vector<uint32_t> allowed(static_cast<size_t>(kernels::mask_words(kVocabSize)));
  std::mt19937 random(20'261'130);
  auto answer = grammar->begin({kEnd});
  int tokens = 0;
  for (auto _ : state) {
    answer->fill(allowed);
    state.PauseTiming();
    const int32_t id = draw(allowed, random);
    if (id < 0 || id == kEnd || ++tokens == kMostTokens || !answer->accept(id)) {
      answer = grammar->begin({kEnd});
      tokens = 0;
    }
    state.ResumeTiming();
  }
}
BENCHMARK(mask)->DenseRange(0, 2)->ArgName("grammar")->Iterations(5'000)->Unit(benchmark::kMicrosecond);

void compile(benchmark::State& state) {
  const auto fresh = compiler(0);
  for (auto _ : state) benchmark::DoNotOptimize(fresh->compile(specs()[static_cast<size_t>(state.range(0))]));
}
BENCHMARK(compile)->DenseRange(0, 2)->ArgName("grammar")->Iterations(5)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::model
