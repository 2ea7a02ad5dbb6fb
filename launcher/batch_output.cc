#include "launcher/batch_output.h"

#include <filesystem>
#include <system_error>

#include "launcher/json_lines.h"

namespace lorikeet::launcher {

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
  auto writer = LineFileWriter::open(kept);
  if (!writer) return tl::unexpected(writer.error());
  while (auto line = reader->next()) {
    const auto result = final_result(*line);
    if (!result) continue;
    if (auto ok = writer->write(*line); !ok) return tl::unexpected(ok.error());
    ++answered.size_;
    if (result->line) {
      ++answered.by_line_[*result->line];
    } else {
      ++answered.by_key_[result->key];
    }
  }
  if (reader->failed()) return fail("{}: could not be read to its end", path);
  if (auto ok = writer->close(); !ok) return tl::unexpected(ok.error());
  std::filesystem::rename(kept, target, error);
  if (error) return fail("{}: {}", target.string(), error.message());
  return answered;
}

bool AnsweredLines::take(const Result<std::unique_ptr<BatchLine>>& line, int64_t number) {
  const auto take_from = [](auto& counts, const auto& key) {
    const auto found = counts.find(key);
    if (found == counts.end() || found->second == 0) return false;
    --found->second;
    return true;
  };
  return line ? take_from(by_key_, (*line)->key()) : take_from(by_line_, number);
}

}  // namespace lorikeet::launcher
