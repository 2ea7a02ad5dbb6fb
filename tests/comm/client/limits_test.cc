#include "comm/client/limits.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <utility>

namespace lorikeet::comm {
namespace {

// 1048576 -> 1,048,576
std::string with_commas(size_t value) {
  std::string text = std::to_string(value);
  for (size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

TEST(Limits, AreThoseOfTheProtocolsPage) {
  std::ifstream file(LORIKEET_SOURCE_DIR "/comm/PROTOCOL.md");
  std::stringstream contents;
  contents << file.rdbuf();
  const std::string page = contents.str();
  const size_t begin = page.find("\n## Limits\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string section = page.substr(begin, page.find("\n## ", begin + 1) - begin);
  const std::pair<const char*, size_t> rows[] = {
      {"bytes of a body", kMaxBodyBytes},
      {"bytes of a single frame", kMaxFrameBodies * kMaxBodyBytes},
      {"depth of nesting in JSON", kMaxJsonDepth},
      {"values in JSON, keys included", kMaxJsonValues},
      {"bytes of a request's `id`", kMaxIdBytes},
      {"bytes of `adapter`", kMaxAdapterBytes},
      {"bytes of a `path`", kMaxPathBytes},
      {"`stop` strings", kMaxStops},
      {"bytes of a `stop` string", kMaxStopBytes},
      {"`stop_token_ids`", kMaxStopTokens},
      {"bytes of answers that wait for one client", kMaxUnreadBytes},
      {"bytes of an answer", kMaxAnswerBytes},
  };
  for (const auto& [what, value] : rows) {
    const std::string row = std::string("\n| ") + what + " | " + with_commas(value) + " |";
    EXPECT_NE(section.find(row), std::string::npos) << row;
  }
  size_t lines = 0;
  for (size_t at = section.find("\n| "); at != std::string::npos; at = section.find("\n| ", at + 1)) ++lines;
  EXPECT_EQ(lines, std::size(rows) + 1) << "a row of the page that no constant stands behind";
}

}  // namespace
}  // namespace lorikeet::comm
