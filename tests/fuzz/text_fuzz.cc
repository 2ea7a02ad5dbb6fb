// Any text through a tokenizer that is served, there and back, whole and in pieces. The first byte picks what is done.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/stop_strings.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/utf8.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace lorikeet::model;
using lorikeet::fuzz::require;

std::string normalized(std::string_view text) {
  std::string normal;
  append_nfc(text, &normal);
  return normal;
}

void there_and_back(const std::shared_ptr<const Tokenizer>& tokenizer, std::string_view text, size_t step) {
  std::string repaired;
  append_repaired_utf8(text, &repaired);
  const std::string normal = normalized(repaired);
  const std::vector<int32_t> ids = tokenizer->encode(text, false);
  // What is beside an added token is normalised by itself.
  const std::string decoded = tokenizer->decode(ids, false);
  require(normalized(decoded) == normal);
  for (const int32_t id : ids) require(!tokenizer->is_special(id));
  require(normalized(tokenizer->decode(tokenizer->encode(text, true), false)) == normal);
  Detokenizer detokenizer(tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) streamed += detokenizer.push(id);
  require(streamed + detokenizer.flush() == decoded);

  // In segments that nothing keeps apart, cut between characters.
  std::vector<TextSegment> segments;
  for (size_t begin = 0; begin < repaired.size();) {
    size_t end = std::min(begin + step, repaired.size());
    while (end < repaired.size() && (static_cast<uint8_t>(repaired[end]) & 0xC0) == 0x80) ++end;
    segments.push_back({std::string_view(repaired).substr(begin, end - begin)});
    begin = end;
  }
  require(tokenizer->encode(segments) == ids);
}

// The stop strings in front, each ended by a zero.
void find_stops(std::string_view text, size_t step) {
  std::vector<std::string> stops;
  for (size_t end; stops.size() < 4 && (end = text.find('\0')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    stops.emplace_back(text.substr(0, end));
  }
  const auto run = [&](size_t by, bool include) {
    StopStringMatcher matcher(stops, include);
    std::string out;
    for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(std::min(by, rest.size()))) {
      out += matcher.push(rest.substr(0, by));
    }
    out += matcher.flush();
    return std::pair(out, matcher.matched());
  };
  const auto whole = run(text.size() + 1, true);
  require(run(step, true) == whole);
  const auto without = run(step, false);
  require(without.second == whole.second);
  // By a plain search: of several the one that ends first, of these the first.
  size_t end = std::string_view::npos;
  for (const std::string& stop : stops) {
    const size_t at = stop.empty() ? std::string_view::npos : text.find(stop);
    if (at != std::string_view::npos) end = std::min(end, at + stop.size());
  }
  require(whole.second.has_value() == (end != std::string_view::npos));
  require(whole.first == text.substr(0, end));
  if (whole.second) require(without.first + stops[*whole.second] == whole.first);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto kTokenizer = *Tokenizer::load(LORIKEET_SOURCE_DIR "/examples/models/tiny-qwen2-gptq-int4");
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const size_t step = data[0] / 2 % 32 + 1;
  data[0] % 2 == 0 ? there_and_back(kTokenizer, text, step) : find_stops(text, step);
  return 0;
}
