// tokenizer.json from anyone: refused with a sentence, or a tokenizer that encodes, decodes and streams without
// complaint.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/tokenizer/bpe.h"
#include "model/tokenizer/tokenizer_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet::model;
  const auto files = parse_tokenizer_json(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!files) {
    if (files.error().message.empty()) std::abort();
    return 0;
  }
  const auto bpe = Bpe::create(files->vocabulary, files->merges, files->whole_piece_first);
  if (!bpe) std::abort();  // what the reader lets through can be built
  const AddedTokenMatcher matcher(files->added_tokens);
  BpeScratch scratch;
  std::vector<int32_t> ids;
  for (const std::string& piece : {std::string("ab"), std::string(" the whale"), std::string(100, 'a')}) {
    ids.clear();
    bpe->encode(piece, &scratch, &ids);
    for (const int32_t id : ids) {
      if (files->vocabulary->bytes_of(id).empty()) std::abort();
    }
    TrustedRanges all;
    all.add(0, piece.size());
    for (AddedTokenMatcher::Place place;;) {
      const size_t from = place.from;
      const auto match = matcher.next(piece, place, all);
      if (match.id < 0) break;
      if (place.from <= from || match.end <= match.begin || match.end > piece.size()) std::abort();
    }
  }
  return 0;
}
