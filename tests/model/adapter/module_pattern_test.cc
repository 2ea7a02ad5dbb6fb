#include "model/adapter/module_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::model {
namespace {

using testing::HasSubstr;

bool full(const char* expression, const char* name) {
  return *ModulePattern::full(expression)->matches(name);
}
bool suffix(const char* expression, const char* name) {
  return *ModulePattern::suffix(expression)->matches(name);
}

TEST(ModulePattern, MatchesTheWholeNameAsPythonsFullmatch) {
  EXPECT_TRUE(full(".*\\.(q|v)_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(full(".*\\.(q|v)_proj", "model.layers.0.self_attn.q_proj.x"));
  EXPECT_FALSE(full("q_proj", "model.q_proj"));
  EXPECT_TRUE(full("a|ab", "ab"));
  EXPECT_FALSE(full("a", "a\n"));
  EXPECT_TRUE(full(".*\\.\\d{,2}\\.q", "layers.10.q"));
  EXPECT_FALSE(full(".*\\.\\d{,2}\\.q", "layers.100.q"));
  EXPECT_TRUE(full("[{,2]+\\{,2}", "{,{,2}"));
  EXPECT_TRUE(full("a{,}b", "aaab"));
  EXPECT_TRUE(full("a{,2b", "a{,2b"));
  EXPECT_TRUE(full("[]{,2}]+", "{,2}]"));
  EXPECT_TRUE(full("[^]a]{,2}", "bb"));
}

// re.match(r"(.*\.)?(KEY)$", name)
TEST(ModulePattern, MatchesTheEndOfANameFromADotOn) {
  EXPECT_TRUE(suffix("q_proj", "q_proj"));
  EXPECT_TRUE(suffix("q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(suffix("q_proj", "model.xq_proj"));
  EXPECT_FALSE(suffix("self_attn", "model.self_attn.q_proj"));
  EXPECT_TRUE(suffix("a|b", "model.b"));
  EXPECT_TRUE(suffix("^model\\.layers\\.0\\.mlp", "model.layers.0.mlp"));
  EXPECT_FALSE(suffix("^layers\\.0\\.mlp", "model.layers.0.mlp"));
  EXPECT_TRUE(suffix("(x)\\3", "model.xx")) << "the key is Python's second group";
}

TEST(ModulePattern, RefusesWhatIsNoExpressionAndWhatIsTooLong) {
  EXPECT_THAT(ModulePattern::full("(").error().message, HasSubstr("is not a regular expression"));
  EXPECT_THAT(ModulePattern::suffix("[z-a]").error().message, HasSubstr("is not a regular expression"));
  EXPECT_THAT(ModulePattern::full(std::string(20000, 'a')).error().message, HasSubstr("an expression of 20000 bytes"));
}

TEST(ModulePattern, GivesUpOnMatchesThatTakeTooLong) {
  const auto pattern = ModulePattern::full("(a+)+b");
  ASSERT_TRUE(pattern);
  const auto match = pattern->matches(std::string(100, 'a') + "b.");
  ASSERT_FALSE(match.has_value());
  EXPECT_THAT(match.error().message, HasSubstr("cannot be matched"));
}

}  // namespace
}  // namespace lorikeet::model
