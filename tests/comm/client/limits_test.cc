#include "comm/client/limits.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace lorikeet::comm {
namespace {

// 1048576 -> 1,048,576
std::string with_commas(size_t value) {
  std::string text = std::to_string(value);
  for (size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

using Rows = std::vector<std::pair<const char*, size_t>>;

// The section "## Limits" of the page has a row for each, and no other.
void expect_rows(const std::string& path, const Rows& rows) {
  std::ifstream file(LORIKEET_SOURCE_DIR "/" + path);
  std::stringstream contents;
  contents << file.rdbuf();
  const std::string page = contents.str();
  const size_t begin = page.find("\n## Limits\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string section = page.substr(begin, page.find("\n## ", begin + 1) - begin);
  for (const auto& [what, value] : rows) {
    const std::string row = std::string("\n| ") + what + " | " + with_commas(value) + " |";
    EXPECT_NE(section.find(row), std::string::npos) << row;
  }
  size_t lines = 0;
  for (size_t at = section.find("\n| "); at != std::string::npos; at = section.find("\n| ", at + 1)) ++lines;
  EXPECT_EQ(lines, rows.size() + 1) << "a row of the page that no constant stands behind";
}

TEST(Limits, AreThoseOfTheProtocolsPage) {
  expect_rows("comm/PROTOCOL.md",
              {
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
                  {"`logprobs` of a token", kMaxLogprobs},
                  {"tokens of `logit_bias`", kMaxLogitBiases},
                  {"`bad_words`", kMaxBadWords},
                  {"bytes of a word of `bad_words`", kMaxBadWordBytes},
                  {"`allowed_token_ids`", kMaxAllowedTokens},
                  {"bytes of `cache_salt`", kMaxCacheSaltBytes},
                  {"log-probabilities of the prompt's tokens and the best ones together", kMaxPromptLogprobs},
                  {"`n`", static_cast<size_t>(kMaxChoices)},
                  {"connections over TCP that have sent no message", kMaxUnspokenConnections},
                  {"seconds of `timeout`", static_cast<size_t>(kMaxTimeoutSeconds)},
                  {"bytes of answers that wait for one client", kMaxUnreadBytes},
                  {"bytes of an answer", kMaxAnswerBytes},
              });
}

TEST(Limits, AreThoseOfOpenAisPage) {
  const auto seconds = [](std::chrono::milliseconds time) { return static_cast<size_t>(time.count() / 1000); };
  expect_rows("comm/openai/README.md",
              {
                  {"bytes of a head", kMaxHttpHeadBytes},
                  {"headers", kMaxHttpHeaders},
                  {"bytes of a body", kMaxBodyBytes},
                  {"bytes of all bodies without an answer", kMaxUndecodedBytes},
                  {"bytes of an answer that its client has not read", kMaxUnreadBytes},
                  {"log-probabilities of prompts' tokens in a stream", kMaxStreamedPromptLogprobs},
                  {"connections", kMaxHttpConnections},
                  {"seconds for a head", seconds(kHttpHeadTime)},
                  {"seconds for a body", seconds(kHttpBodyTime)},
                  {"seconds between two requests", seconds(kHttpIdleTime)},
                  {"seconds in which a client takes nothing", seconds(kHttpWriteTime)},
              });
}

}  // namespace
}  // namespace lorikeet::comm
