#include "launcher/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ConfigFileTest : public testing::Test {
 protected:
  ConfigFileTest() {
    app_.add_option("MODEL,--model", model_);
    app_.add_option("--max-model-len", length_);
    app_.add_option("--tensor-parallel-size,--tp", ranks_);
    app_.add_option("--lora-modules", modules_);
    app_.add_option("--default-chat-template-kwargs", variables_);
    app_.add_flag("--log-json", flag_);
    add_config_flag(app_);
  }

  Result<std::vector<std::string>> expand(const std::string& yaml, std::vector<std::string> more = {}) {
    tests::write_file(path_, yaml);
    more.insert(more.end(), {"--config", path_});
    return expand_config_file(app_, more);
  }

  tests::TempDir scratch_;
  const std::string path_ = (scratch_ / "lorikeet.yaml").string();
  CLI::App app_;
  std::string model_, length_, variables_;
  int ranks_ = 1;
  std::vector<std::string> modules_;
  bool flag_ = false;
};

TEST_F(ConfigFileTest, MakesFlagsOfKeys) {
  const auto flags = expand(
      "model: /models/a b\nmax_model_len: 32k\nlog-json: true\n"
      "lora-modules: [a=/a, b=/b]\n");
  EXPECT_THAT(flags.value(), ElementsAre("--model", "/models/a b", "--max-model-len", "32k", "--log-json",
                                         "--lora-modules", "a=/a", "b=/b"));
}

TEST_F(ConfigFileTest, TakesWhatYamlCallsTrueAndFalse) {
  for (const char* value : {"true", "yes", "on", "1"}) {
    EXPECT_THAT(expand(std::string("log-json: ") + value).value(), ElementsAre("--log-json")) << value;
  }
  for (const char* value : {"false", "no", "off", "0"}) {
    EXPECT_THAT(expand(std::string("log-json: ") + value).value(), ElementsAre("--log-json=false")) << value;
  }
}

TEST_F(ConfigFileTest, TakesModulesAsMaps) {
  const auto flags = expand("lora-modules:\n  - {name: kjv, path: /kjv}\n");
  EXPECT_THAT(flags.value(), ElementsAre("--lora-modules", R"({"name":"kjv","path":"/kjv"})"));
  EXPECT_THAT(expand("lora-modules:\n  - {n\xE1me: kjv, path: /kjv}\n").error().message, HasSubstr("is not UTF-8"));
}

TEST_F(ConfigFileTest, GivesMapsAsJsonWhoseValuesAreWhatYamlCallsThem) {
  const auto flags = expand(
      "default-chat-template-kwargs: {enable_thinking: false, budget: 8, share: 0.5, name: yes sir, text: \"8\",\n"
      "  none: null, list: [1, {a: on}]}\nlora-modules: [{name: 2024, path: /a}]\n");
  EXPECT_THAT(flags.value(),
              ElementsAre("--default-chat-template-kwargs",
                          R"({"enable_thinking":false,"budget":8,"share":0.5,"name":"yes sir","text":"8",)"
                          R"("none":null,"list":[1,{"a":true}]})",
                          "--lora-modules", R"({"name":"2024","path":"/a"})"));
  EXPECT_THAT(expand("default-chat-template-kwargs: {axis: y, most: .inf, code: !!str 8}\n").value(),
              ElementsAre("--default-chat-template-kwargs", R"({"axis":"y","most":".inf","code":"8"})"));
  EXPECT_THAT(expand("default-chat-template-kwargs: &a {b: [*a]}\n").error().message, HasSubstr("nested too deeply"));
}

TEST_F(ConfigFileTest, LetsTheCommandLineWin) {
  EXPECT_THAT(expand("tensor-parallel-size: 4\nmodel: /a\n", {"/b", "--tp=2"}).value(), ElementsAre("/b", "--tp=2"));
}

TEST_F(ConfigFileTest, LeavesArgumentsWithoutAFileAlone) {
  EXPECT_THAT(expand_config_file(app_, {"/a", "--tp", "2"}).value(), ElementsAre("/a", "--tp", "2"));
  EXPECT_THAT(expand("").value(), IsEmpty());
}

TEST_F(ConfigFileTest, SaysWhereAFileIsWrong) {
  EXPECT_EQ(expand("model: /a\nmax-model-length: 9\n").error().message,
            "--config " + path_ + ", line 2: there is no flag 'max-model-length'; did you mean 'max-model-len'?");
  EXPECT_THAT(expand("model: [\n").error().message, HasSubstr(", line "));
  EXPECT_THAT(expand("- model\n").error().message, HasSubstr("it is not a map of flags to values"));
  EXPECT_EQ(expand("model: /a\nlog-json: maybe\n").error().message,
            "--config " + path_ + ", line 2: 'log-json' takes no value but true and false");
  for (const char* value : {"", " 2", " [true]", " {a: b}", " \"\""}) {
    EXPECT_THAT(expand(std::string("log-json:") + value + "\n").error().message, HasSubstr("but true and false"))
        << value;
  }
  EXPECT_EQ(expand("max-model-len: 1k\nmax_model_len: 2k\n").error().message,
            "--config " + path_ + ", line 2: the flag 'max-model-len' is given twice");
  EXPECT_THAT(expand("tp: 1\ntensor-parallel-size: 2\n").error().message, HasSubstr("line 2: the flag"));
  EXPECT_THAT(expand("config: other.yaml\n").error().message, HasSubstr("there is no flag 'config'"));
  EXPECT_THAT(expand_config_file(app_, {"--config"}).error().message, HasSubstr("give a file"));
  EXPECT_THAT(expand_config_file(app_, {"--config=/no/such"}).error().message, HasSubstr("cannot be read"));
}

}  // namespace
}  // namespace lorikeet::launcher
