// How fast text becomes ids, beside its floor: cutting the same text into pieces, which the pre-tokenizer's expression
// alone needs. The published Qwen2 vocabulary is used where it is at hand (../shared), else the example model's.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::model {
namespace {

const std::filesystem::path kSource = LORIKEET_SOURCE_DIR;

std::filesystem::path vocabulary_dir() {
  const auto published = kSource / "../shared/fixtures/qwen2-tokenizer";
  return std::filesystem::exists(published) ? published : kSource / "examples/models/tiny-qwen2-gptq-int4";
}

const std::shared_ptr<const Tokenizer>& tokenizer() {
  static const std::shared_ptr<const Tokenizer> kTokenizer = [] {
    auto loaded = Tokenizer::load(vocabulary_dir());
    if (!loaded) {
      std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
      std::exit(1);
    }
    return *loaded;
  }();
  return kTokenizer;
}

// All files of a folder with one of the endings, one after the other, in the order of their names.
std::string files_of(const std::filesystem::path& dir, const std::vector<std::string>& endings) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (std::find(endings.begin(), endings.end(), entry.path().extension()) != endings.end()) {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::string text;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

const std::string& english() {
  static const std::string kText = files_of(kSource / "tests/data/text", {".txt"});
  return kText;
}

const std::string& code() {
  static const std::string kText =
      files_of(kSource / "model", {".cc", ".h"}) + files_of(kSource / "tests/data/make", {".py"});
  return kText;
}

// Chat as it comes: several scripts, composed and decomposed accents, emoji, JSON, numbers.
const std::string& mixed() {
  static const std::string kText = [] {
    const std::string chat =
        "用户问:这个模型在两张显卡上每秒能生成多少个词?回答:取决于批量大小和上下文长度。\n"
        "Вечером мы пойдём к реке, если не будет дождя; дети возьмут с собой хлеб для уток.\n"
        "Le cafe\xCC\x81 est fermé, mais la boulangerie d'à côté reste ouverte jusqu'à 19 h 30 😀👍🏽.\n"
        "東京の天気は晴れ、気温は二十一度です。カメラを持って散歩に行きましょう。\n"
        "{\"city\": \"São Paulo\", \"temperature\": 23.75, \"tags\": [\"sunny\", \"humid\"], \"id\": 90210}\n";
    std::string text;
    for (size_t begin = 0; begin < english().size(); begin += 500) text += english().substr(begin, 500) + chat;
    return text;
  }();
  return kText;
}

void report(benchmark::State& state, const std::string& text) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * static_cast<int64_t>(text.size()));
  state.counters["text_KB"] = static_cast<double>(text.size()) / 1e3;
}

void encode(benchmark::State& state, const std::string& (*text)()) {
  size_t ids = 0;
  for (auto _ : state) {
    ids = tokenizer()->encode(text(), false).size();
    benchmark::DoNotOptimize(ids);
  }
  report(state, text());
  state.counters["bytes_per_id"] = static_cast<double>(text().size()) / static_cast<double>(ids);
}

// With nothing in the cache of pieces: what the first request costs.
void encode_cold(benchmark::State& state, const std::string& (*text)()) {
  for (auto _ : state) {
    state.PauseTiming();
    const auto fresh = *Tokenizer::load(vocabulary_dir());
    state.ResumeTiming();
    benchmark::DoNotOptimize(fresh->encode(text(), false).size());
  }
  report(state, text());
}

void cut_into_pieces(benchmark::State& state, const std::string& (*text)()) {
  const PreTokenizer pre_tokenizer;
  PieceMatcher matcher = pre_tokenizer.matcher();
  for (auto _ : state) {
    size_t pieces = 0;
    for (size_t begin = 0; begin < text().size(); ++pieces) begin = matcher.end_of_piece(text(), begin);
    benchmark::DoNotOptimize(pieces);
  }
  report(state, text());
}

void decode(benchmark::State& state) {
  const auto ids = tokenizer()->encode(english(), false);
  for (auto _ : state) {
    Detokenizer detokenizer(tokenizer(), true);
    size_t bytes = 0;
    for (const int32_t id : ids) bytes += detokenizer.push(id).size();
    benchmark::DoNotOptimize(bytes);
  }
  report(state, english());
}

void load(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::load(vocabulary_dir()));
}

BENCHMARK_CAPTURE(cut_into_pieces, english, english);
BENCHMARK_CAPTURE(encode, english, english);
BENCHMARK_CAPTURE(encode_cold, english, english)->Iterations(10);
BENCHMARK_CAPTURE(cut_into_pieces, code, code);
BENCHMARK_CAPTURE(encode, code, code);
BENCHMARK_CAPTURE(encode_cold, code, code)->Iterations(10);
BENCHMARK_CAPTURE(cut_into_pieces, mixed, mixed);
BENCHMARK_CAPTURE(encode, mixed, mixed);
BENCHMARK_CAPTURE(encode_cold, mixed, mixed)->Iterations(10);
BENCHMARK(decode)->Name("decode_stream/english");
BENCHMARK(load)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace lorikeet::model
