#include "launcher/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/man_page.h"

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;
using testing::Not;

// A small command line with everything in it that scripts must quote.
class CompletionTest : public testing::Test {
 protected:
  CompletionTest() {
    CLI::App* serve = app_.add_subcommand("serve", "Serves it's model");
    serve->add_option("MODEL,--model", text_, "A directory: [of] a\\model")->required();
    serve->add_option("--device", text_, "Where")->check(CLI::IsMember({"cpu", "cuda"}))->group("Devices");
    serve->add_flag("--hidden")->group("");
    serve->footer(".hidden files are 'served'");
    app_.add_subcommand("bench", "Measures")
        ->add_subcommand("lora", "Adapters")
        ->add_flag("-q,--quick", flag_, "Quick");
  }

  CommandInfo tree() const { return command_tree(app_); }

  CLI::App app_{"Lorikeet", "lorikeet"};
  std::string text_;
  bool flag_ = false;
};

TEST_F(CompletionTest, KnowsCommandsFlagsAndChoices) {
  const CommandInfo root = tree();
  ASSERT_EQ(root.commands.size(), 2u);
  const CommandInfo& serve = root.commands[0];
  EXPECT_EQ(serve.name, "lorikeet serve");
  ASSERT_EQ(serve.flags.size(), 3u) << "--help, --model, --device";
  EXPECT_EQ(serve.flags[2].choices, (std::vector<std::string>{"cpu", "cuda"}));
  EXPECT_EQ(root.commands[1].commands[0].flags[1].names, (std::vector<std::string>{"-q", "--quick"}));
}

TEST_F(CompletionTest, WritesScriptsForThreeShells) {
  const std::string bash = completion_script(tree(), "bash").value();
  EXPECT_THAT(bash, HasSubstr("'serve') words='-h --help --model --device' ;;"));
  EXPECT_THAT(bash, HasSubstr("'serve --device') values='cpu cuda' ;;"));
  EXPECT_THAT(bash, HasSubstr("'bench lora') words='-h --help -q --quick' ;;"));
  const std::string zsh = completion_script(tree(), "zsh").value();
  EXPECT_THAT(zsh, HasSubstr("'*--model[A directory\\: \\[of\\] a\\\\model]:TEXT:_files'"));
  EXPECT_THAT(zsh, HasSubstr("'serve:Serves it'\\''s model'"));
  const std::string fish = completion_script(tree(), "fish").value();
  EXPECT_THAT(fish,
              HasSubstr("-n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from lora' -s q -l quick"));
  EXPECT_THAT(fish, HasSubstr("-l device -r -f -a 'cpu cuda' -d 'Where'"));
  for (const std::string& script : {bash, zsh, fish}) EXPECT_THAT(script, Not(HasSubstr("--hidden")));
  EXPECT_FALSE(completion_script(tree(), "csh"));
}

TEST_F(CompletionTest, WritesManPages) {
  const std::string page = man_page(tree().commands[0], "1.2");
  EXPECT_THAT(page, HasSubstr(".TH LORIKEET\\-SERVE 1 \"\" \"lorikeet 1.2\"\n"));
  EXPECT_THAT(page, HasSubstr("\\fBlorikeet serve\\fR [\\fIOPTIONS\\fR] \\fIMODEL\\fR\n"));
  EXPECT_THAT(page,
              HasSubstr(".SH DEVICES\n.TP\n\\fB\\-\\-device\\fR \\fITEXT\\fR\nWhere: \\fBcpu\\fR, \\fBcuda\\fR\n"));
  EXPECT_THAT(page, HasSubstr("\n\\&.hidden files are 'served'\n")) << "no request of roff";
  EXPECT_THAT(page, HasSubstr(".SH EXIT STATUS\n"));
  EXPECT_THAT(man_page(tree(), "1.2"), HasSubstr("\\fBlorikeet\\-bench\\fR(1)\nMeasures\n"));
}

}  // namespace
}  // namespace lorikeet::launcher
