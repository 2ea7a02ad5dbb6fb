#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "model/chat/jinja/json_text.h"
#include "model/chat/jinja/program.h"
#include "tests/model/tokenizer/tokenizer_fixtures.h"

namespace lorikeet::model::jinja {
namespace {

using model::testing::kSource;
using model::testing::read_text;
using nlohmann::ordered_json;
using ::testing::HasSubstr;

const std::filesystem::path kData = kSource / "tests/data/jinja";

// The instant that tests/data/make/transformers_jinja.py renders at.
std::time_t instant() {
  std::tm time = {};
  time.tm_year = 126;
  time.tm_mon = 2;
  time.tm_mday = 1;
  time.tm_hour = 12;
  time.tm_min = 30;
  time.tm_sec = 45;
  time.tm_isdst = -1;
  return std::mktime(&time);
}

Evaluator::Variables variables_of(const ordered_json& json) {
  Evaluator::Variables variables;
  for (const auto& [name, value] : json.items()) variables.emplace(name, from_json(value));
  return variables;
}

Result<std::string> render(std::string_view source, const Evaluator::Variables& variables, Limits limits = {}) {
  auto program = Program::compile(source);
  if (!program) return tl::unexpected(program.error());
  auto text = program->render(variables, instant(), limits);
  if (!text) return tl::unexpected(text.error());
  return text->bytes();
}

std::string digest(const std::string& text) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), bytes, &size, EVP_sha256(), nullptr);
  std::string digits;
  for (int i = 0; i < 8; ++i) digits += fmt::format("{:02x}", bytes[i]);
  return digits;
}

TEST(Jinja, RendersWhatPythonsJinjaRendersAndRefusesWhatItRefuses) {
  const std::string file = read_text(kData / "cases.json");
  const auto data = ordered_json::parse(file);
  auto variables = variables_of(data["variables"]);
  const std::string given = file.substr(file.find(':') + 1, file.find("\n\"cases\"") - file.find(':') - 2);
  const Value values = parse_json(given);
  for (const auto& [name, value] : values.dict()->items) variables[name.text()->bytes()] = value;
  ASSERT_GE(data["cases"].size(), 250u);
  for (const auto& one : data["cases"]) {
    const auto source = one["template"].get<std::string>();
    const auto rendered = render(source, variables);
    if (one["text"].is_null()) {
      EXPECT_FALSE(rendered) << source << "\ngives " << rendered.value_or("");
    } else {
      ASSERT_TRUE(rendered || ::testing::Test::HasFailure()) << source << "\n" << rendered.error().message;
      EXPECT_EQ(rendered ? *rendered : rendered.error().message, one["text"].get<std::string>()) << source;
    }
  }
}

class JinjaTemplate : public ::testing::TestWithParam<std::string> {};

TEST_P(JinjaTemplate, RendersEveryConversationAsPythonsJinja) {
  const auto data = ordered_json::parse(read_text(kData / "renderings.json"));
  const std::string source = read_text(kData / "templates" / (GetParam() + ".jinja"));
  const auto program = Program::compile(source);
  ASSERT_TRUE(program) << program.error().message;
  const auto& digests = data["renderings"][GetParam()];
  ASSERT_EQ(digests.size(), data["options"].size());
  for (size_t o = 0; o < digests.size(); ++o) {
    auto variables = variables_of(data["options"][o]);
    for (const auto& [name, token] : data["tokens"].items()) variables[name] = Text::own(token.get<std::string>());
    for (size_t c = 0; c < digests[o].size(); ++c) {
      variables["messages"] = from_json(data["conversations"][c]);
      const auto text = program->render(variables, instant());
      const std::string got = text ? digest(text->bytes()) : "null";
      const std::string wanted = digests[o][c].is_null() ? "null" : digests[o][c].get<std::string>();
      ASSERT_EQ(got, wanted) << data["options"][o] << data["conversations"][c] << "\n"
                             << (text ? text->bytes() : text.error().message);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OfModels, JinjaTemplate,
                         ::testing::Values("character-cards", "dated-header", "documents", "generation-blocks",
                                           "instructions", "parts", "qwen1.5", "qwen2.5", "qwen2.5-math", "qwen3",
                                           "qwen3-coder", "qwen3-nonthinking", "qwen3-thinking-2507", "qwq",
                                           "r1-distill", "renamed-roles", "spoken-names", "strict-turns",
                                           "tagged-turns", "typed-tools"),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

TEST(Jinja, IsBoundedInStepsOutputAndDepthWhateverTheTemplate) {
  const std::pair<std::string, std::string> cases[] = {
      {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"},
      {"{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}", "bytes"},
      {"{% set ns = namespace(t='x') %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}", "steps"},
      {"{% set ns = namespace(t=[1]) %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}", "steps"},
      {"{{ 'x' * 99999999999 }}", "more than"},
      {"{{ [1] * 99999999 }}", "more than"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested deeper"},
      {"{{ '" + std::string(9, 'x') + "'.center(99999999) }}", "wider"},
      {std::string(2000, '(') + "1", ""},
      {"{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}", "nested deeper"},
      {"{{ " + std::string(5000, '[') + std::string(5000, ']') + " }}", "nested deeper"},
      {"{{ " + std::string(5000, '-') + "1 }}", "nested deeper"},
      {"{% set ns = namespace(t=[]) %}{% for a in range(999) %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.t }}",
       "nested"},
      {"{% set ns = namespace(t=[]) %}{% for a in range(999) %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.t|tojson }}",
       "nested"},
  };
  for (const auto& [source, sentence] : cases) {
    const auto rendered = render(source, {}, {.max_steps = 2'000'000, .max_output = 1 << 20});
    if (sentence.empty()) continue;  // text
    ASSERT_FALSE(rendered) << source.substr(0, 100);
    EXPECT_THAT(rendered.error().message, HasSubstr(sentence)) << source.substr(0, 100);
  }
  std::string blocks;
  for (int i = 0; i < 5000; ++i) blocks += "{% if 1 %}";
  EXPECT_THAT(render(blocks, {}).error().message, HasSubstr("nested deeper"));
}

TEST(Jinja, SaysInWhichLineATemplateIsWrong) {
  EXPECT_THAT(render("a\n\n{% nope %}", {}).error().message, HasSubstr("line 3: the statement \"nope\""));
  EXPECT_THAT(render("a\n{{ x|nope }}", {}).error().message, HasSubstr("line 2: there is no filter \"nope\""));
  EXPECT_EQ(render("{{ raise_exception('No ' ~ 5) }}", {}).error().message, "No 5");
  EXPECT_THAT(render("{{ x.y }}", {}).error().message, HasSubstr("'x' is undefined"));
  EXPECT_FALSE(Program::compile("\xFF"));
  EXPECT_FALSE(Program::compile(std::string(Program::kMaxSource + 1, 'x')));
}

TEST(Jinja, KnowsWhichVariablesATemplateMentions) {
  const auto program = Program::compile("{% if tools %}{{ x.y }}{% endif %} enable_thinking");
  EXPECT_TRUE(program->mentions("tools"));
  EXPECT_FALSE(program->mentions("enable_thinking"));
}

}  // namespace
}  // namespace lorikeet::model::jinja
