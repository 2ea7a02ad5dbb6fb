#include "launcher/batch_output.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "launcher/json_lines.h"

namespace lorikeet::launcher {
namespace {

using nlohmann::json;

// A result line that is final: its id, or its line number where no request was read.
bool is_final(const json& line) {
  if (!line.is_object() || !line.contains("id")) return false;
  const auto error = line.find("error");
  if (error == line.end()) return false;
  if (error->is_null()) return true;
  return error->is_object() && error->contains("code") && (*error)["code"].is_string() &&
         !is_of_the_server((*error)["code"].get_ref<const std::string&>());
}

}  // namespace

bool is_of_the_server(std::string_view code) {
  constexpr std::array<std::string_view, 5> kCodes = {"rank_lost", "server_lost", "shutting_down", "queue_full",
                                                      "internal"};
  return std::find(kCodes.begin(), kCodes.end(), code) != kCodes.end();
}

Result<AnsweredLines> AnsweredLines::take_over(const std::string& path) {
  AnsweredLines answered;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return answered;
  if (!std::filesystem::is_regular_file(path, error)) return fail("--resume: {} is not a file", path);
  auto reader = LineReader::open(path);
  if (!reader) return tl::unexpected(reader.error());
  const std::filesystem::path target = std::filesystem::canonical(path, error);  // a link stays one
  if (error) return fail("{}: {}", path, error.message());
  const std::string kept = target.string() + ".resumed";
  auto writer = LineWriter::open(kept);
  if (!writer) return tl::unexpected(writer.error());
  while (auto line = reader->next()) {
    const json result = json::parse(*line, nullptr, false);
    if (!is_final(result)) continue;
    if (auto ok = writer->write(*line); !ok) return tl::unexpected(ok.error());
    ++answered.size_;
    if (const auto number = result.find("line"); number != result.end() && number->is_number_integer()) {
      ++answered.by_line_[number->get<int64_t>()];
    } else {
      ++answered.by_id_[result["id"].dump()];
    }
  }
  if (reader->failed()) return fail("{}: could not be read to its end", path);
  if (auto ok = writer->close(); !ok) return tl::unexpected(ok.error());
  std::filesystem::rename(kept, target, error);
  if (error) return fail("{}: {}", target.string(), error.message());
  return answered;
}

bool AnsweredLines::take(const Result<comm::RequestLine>& line, int64_t number) {
  const auto take_from = [](auto& counts, const auto& key) {
    const auto found = counts.find(key);
    if (found == counts.end() || found->second == 0) return false;
    --found->second;
    return true;
  };
  if (!line) return take_from(by_line_, number);
  return take_from(by_id_, line->integer_id ? line->request.id : json(line->request.id).dump());
}

}  // namespace lorikeet::launcher
