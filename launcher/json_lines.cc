#include "launcher/json_lines.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>

namespace lorikeet::launcher {

Result<LineReader> LineReader::open(const std::string& path) {
  LineReader reader;
  if (path == "-") return reader;
  if (std::filesystem::is_directory(path)) return fail("{}: is a directory", path);
  reader.file_ = std::make_unique<std::ifstream>(path, std::ios::binary);
  if (!*reader.file_) return fail("{}: {}", path, std::strerror(errno));
  return reader;
}

std::optional<std::string> LineReader::next() {
  std::istream& in = file_ ? *file_ : std::cin;
  std::streambuf& buffer = *in.rdbuf();
  while (true) {
    std::string line;
    int c = buffer.sbumpc();
    if (c == EOF) return std::nullopt;
    ++number_;
    for (; c != EOF && c != '\n'; c = buffer.sbumpc()) {
      if (line.size() <= kMaxLine) line.push_back(static_cast<char>(c));
    }
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) return line;
  }
}

bool LineReader::failed() const {
  return file_ && file_->bad();
}

int64_t count_lines(const std::string& path) {
  if (path == "-") return 0;
  std::ifstream file(path, std::ios::binary);
  int64_t lines = 0;
  bool empty = true;  // the present line
  std::array<char, 1 << 16> buffer;
  do {
    file.read(buffer.data(), buffer.size());
    for (std::streamsize i = 0; i < file.gcount(); ++i) {
      const char c = buffer[static_cast<size_t>(i)];
      if (c == '\n') {
        lines += empty ? 0 : 1;
        empty = true;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        empty = false;
      }
    }
  } while (file);
  return lines + (empty ? 0 : 1);
}

void LineFileWriter::Close::operator()(std::FILE* file) const {
  if (file != stdout) std::fclose(file);
}

Result<LineFileWriter> LineFileWriter::open(const std::string& path, bool append) {
  LineFileWriter writer;
  writer.path_ = path;
  writer.file_.reset(path == "-" ? stdout : std::fopen(path.c_str(), append ? "ab" : "wb"));
  if (!writer.file_) return fail("{}: {}", path, std::strerror(errno));
  return writer;
}

Result<void> LineFileWriter::write(const std::string& line) {
  std::FILE* file = file_.get();
  if (std::fwrite(line.data(), 1, line.size(), file) != line.size() || std::fputc('\n', file) == EOF ||
      std::fflush(file) != 0) {
    return fail("cannot write to {}: {}", path_, std::strerror(errno));
  }
  return {};
}

Result<void> LineFileWriter::close() {
  if (std::fflush(file_.get()) != 0) return fail("cannot write to {}: {}", path_, std::strerror(errno));
  file_.reset();
  return {};
}

Result<void> check_distinct(const std::string& input, const std::string& output) {
  const auto identify = [](const std::string& path, int standard, struct stat& file) {
    return (path == "-" ? fstat(standard, &file) : stat(path.c_str(), &file)) == 0 && S_ISREG(file.st_mode);
  };
  struct stat from = {}, to = {};
  if (!identify(input, STDIN_FILENO, from) || !identify(output, STDOUT_FILENO, to)) return {};
  if (from.st_dev != to.st_dev || from.st_ino != to.st_ino) return {};
  return fail("the input {} and the output {} are the same file", input, output);
}

Result<void> answer_lines(const std::string& input, const std::string& output,
                          const std::function<std::string(const std::string& line, int64_t number)>& answer) {
  if (auto ok = check_distinct(input, output); !ok) return ok;
  auto reader = LineReader::open(input);
  if (!reader) return tl::unexpected(reader.error());
  auto writer = LineFileWriter::open(output);
  if (!writer) return tl::unexpected(writer.error());
  while (auto line = reader->next()) {
    if (auto ok = writer->write(answer(*line, reader->line_number())); !ok) return ok;
  }
  if (reader->failed()) return fail("{}: could not be read to its end", input);
  return writer->close();
}

}  // namespace lorikeet::launcher
