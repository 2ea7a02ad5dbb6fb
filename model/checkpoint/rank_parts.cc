#include "model/checkpoint/rank_parts.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "model/checkpoint/tensor_names.h"

namespace lorikeet::model {
namespace {

constexpr uint64_t kShortRun = 64;  // bytes: for shorter ones, whole rows are as cheap

bool take_suffix(std::string_view& name, std::string_view suffix) {
  if (name.size() < suffix.size() || name.substr(name.size() - suffix.size()) != suffix) return false;
  name.remove_suffix(suffix.size());
  return true;
}

// Elements [begin, end) of a dimension of `whole` values that is stored as `stored` words of several values.
std::optional<Range> words_of(Range values, int64_t whole, int64_t stored) {
  if (stored <= 0 || stored > whole) return std::nullopt;
  const int64_t per_word = (whole + stored - 1) / stored;
  if ((whole + per_word - 1) / per_word != stored) return std::nullopt;
  return Range{static_cast<int32_t>(values.begin / per_word),
               static_cast<int32_t>((values.end + per_word - 1) / per_word)};
}

// The rows and columns of a stored matrix that hold a part of a projection; nullopt: all of it is wanted.
std::optional<std::pair<Range, Range>> cut_of(std::string_view kind, const TensorEntry& entry, Range outputs,
                                              int32_t all_outputs, Range inputs, int32_t all_inputs) {
  if (entry.shape.size() != 2) return std::nullopt;
  const bool inputs_first = kind == ".qweight";  // GPTQ and AWQ; elsewhere a row is an output
  const auto rows =
      inputs_first ? words_of(inputs, all_inputs, entry.shape[0]) : words_of(outputs, all_outputs, entry.shape[0]);
  const auto columns =
      inputs_first ? words_of(outputs, all_outputs, entry.shape[1]) : words_of(inputs, all_inputs, entry.shape[1]);
  if (!rows || !columns) return std::nullopt;
  return std::pair(*rows, *columns);
}

ByteRuns runs_of(const TensorEntry& entry, uint64_t data_begin, Range rows, Range columns) {
  const auto width = static_cast<uint64_t>(entry.shape[1]);
  const uint64_t element = (entry.end - entry.begin) / (static_cast<uint64_t>(entry.shape[0]) * width);
  const uint64_t run = static_cast<uint64_t>(columns.size()) * element, stride = width * element;
  const uint64_t first = data_begin + entry.begin + static_cast<uint64_t>(rows.begin) * stride;
  const auto count = static_cast<uint64_t>(rows.size());
  if (run == stride || run < kShortRun) return {first, count * stride, 0, 1};
  return {first + static_cast<uint64_t>(columns.begin) * element, run, stride, count};
}

}  // namespace

std::vector<FilePart> parts_of_rank(const Checkpoint& checkpoint, const ShardPlan& plan, int rank) {
  const ModelConfig& config = plan.config();
  std::vector<FilePart> parts;
  for (const std::string& name : checkpoint.names()) {
    const auto tensor = checkpoint.find(name);
    const TensorEntry& entry = *tensor->entry;
    const std::string file = tensor->file->path().filename().string();
    const uint64_t data_begin = tensor->file->header().data_begin;
    const ByteRuns whole{data_begin + entry.begin, entry.end - entry.begin, 0, 1};
    if (whole.bytes == 0) continue;
    std::vector<ByteRuns> runs;
    if (name == std::string(kLmHeadName) + ".weight" && !config.tie_word_embeddings) {
      const Range all{0, config.hidden_size};
      if (const auto cut = cut_of(".weight", entry, plan.shard(rank).vocab, config.vocab_size, all, all.end)) {
        runs.push_back(runs_of(entry, data_begin, cut->first, cut->second));
      }
    }
    for (const char* kind : {".qweight", ".weight_packed", ".weight"}) {
      std::string_view module = name;
      if (!take_suffix(module, kind)) continue;
      const auto found = find_layer_module(config, module);
      if (!found) break;
      for (const Projection p : found->projections) {
        const ModulePlace place = place_of(config, found->layer, p);
        Range outputs = plan.outputs(p, rank);
        outputs = {place.first_output + outputs.begin, place.first_output + outputs.end};
        const auto cut = cut_of(kind, entry, outputs, place.outputs, plan.inputs(p, rank), input_size(config, p));
        runs.push_back(cut ? runs_of(entry, data_begin, cut->first, cut->second) : whole);
      }
      break;
    }
    if (runs.empty() || std::find(runs.begin(), runs.end(), whole) != runs.end()) runs = {whole};
    for (const ByteRuns& one : runs) parts.push_back({file, one});
  }
  return parts;
}

std::vector<FilePart> in_pieces(const std::vector<FilePart>& parts, uint64_t most) {
  std::vector<FilePart> pieces;
  for (const FilePart& part : parts) {
    const ByteRuns& all = part.runs;
    if (all.count == 1) {
      for (uint64_t done = 0; done < all.bytes; done += most) {
        pieces.push_back({part.file, {all.begin + done, std::min(most, all.bytes - done), 0, 1}});
      }
      continue;
    }
    const uint64_t at_once = std::max<uint64_t>(1, most / all.bytes);
    for (uint64_t done = 0; done < all.count; done += at_once) {
      pieces.push_back(
          {part.file, {all.begin + done * all.stride, all.bytes, all.stride, std::min(at_once, all.count - done)}});
    }
  }
  return pieces;
}

}  // namespace lorikeet::model
