// The built `lorikeet`: what it says of its command line.
#include "launcher/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/base/nearest_word.h"
#include "tests/launcher/process.h"

namespace lorikeet::launcher {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using tests::run_lorikeet;

TEST(NearestWord, FindsAWordWithinAThirdOfItsLetters) {
  const std::vector<std::string> known = {"serve", "submit", "status"};
  EXPECT_EQ(nearest_word("sevre", known), "serve");
  EXPECT_EQ(nearest_word("stats", known), "status");
  EXPECT_EQ(nearest_word("chat", known), "");
}

struct Mistake {
  std::vector<std::string> arguments;
  std::string says;
};

TEST(CommandLine, AnswersMistakesWithStatus2AndItsCommandsName) {
  const Mistake mistakes[] = {
      {{"sevre"}, "lorikeet: there is no command 'sevre'; did you mean 'serve'?"},
      {{"frobnicate"}, "lorikeet: there is no command 'frobnicate', only serve, batch"},
      {{"adapters", "unlod", "kjv"}, "lorikeet adapters: there is no command 'unlod'; did you mean 'unload'?"},
      {{"adapters"}, "lorikeet adapters: give a command: list, load"},
      {{}, "lorikeet: give a command: serve, batch"},
      {{"--foo"}, "lorikeet: give a command before '--foo': serve, batch"},
      {{"--tp", "2", "serve", "x"}, "lorikeet: give a command before '--tp': serve, batch"},
      {{"-x"}, "lorikeet: give a command before '-x': serve, batch"},
      {{"adapters", "--zmq=x", "list"}, "lorikeet adapters: give a command before '--zmq=x': list, load"},
      {{"serve"}, "lorikeet serve: --model is required"},
      {{"serve", "x", "--tp", "x"}, "lorikeet serve: --tensor-parallel-size: give a number that fits, not x"},
      {{"serve", "x", "--log-json=maybe"},
       "lorikeet serve: --log-json takes no value but true and false, not maybe\nlorikeet serve --help"},
      {{"serve", "x", "--enforce-eager=maybe"},
       "lorikeet serve: --enforce-eager takes no value but true and false, not maybe"},
      {{"serve", "x", "--tp"}, "lorikeet serve: --tensor-parallel-size: give a value"},
      {{"submit", "--adapter", "--max-tokens", "3", "hi"},
       "lorikeet submit: --adapter: give a value; --max-tokens is a flag (if it is meant, write "
       "--adapter=--max-tokens)\n"},
      {{"serve", "x", "--host", "--port=1"},
       "lorikeet serve: --host: give a value; --port=1 is a flag (if it is meant, "
       "write --host=--port=1)\n"},
      {{"serve", "x", "-q", "--port", "1"}, "lorikeet serve: -q: give a value; --port is a flag "},
      {{"submit", "a", "b", "--adapter", "x", "--adapter", "y", "--adapter", "z"},
       "lorikeet submit: 2 prompts and 3 adapters: "},
      {{"submit", "--prompt-token-ids", "1", "2", "3"}, "lorikeet submit: the prompt 2 would be text: "},
      {{"submit", "-", "-"}, "lorikeet submit: the standard input can be one prompt only"},
      {{"serve", "x", "a\x1b[2J\nb"}, "lorikeet serve: unexpected: a?[2J?b\n"},
      {{"serve", "x", "--port", "= 1"}, "lorikeet serve: --port: "},
      {{"submit", "--prompt-token-ids", "1,x"},
       "lorikeet submit: --prompt-token-ids: 1,x is no list of token ids, such as 1,2,3"},
      {{"serve", "x", "-ngl", "99"}, "lorikeet serve: unexpected: -ngl 99"},
      {{"serve", "x", "--max-model-length", "9"},
       "lorikeet serve: there is no '--max-model-length'; did you mean '--max-model-len'?"},
      {{"bench", "latency", "x", "--output-lenn=3"},
       "lorikeet bench latency: there is no '--output-lenn=3'; did you mean '--output-len'?"},
      {{"serve", "x", "--tensor-parallel-size", "two"}, "lorikeet serve: "},
      {{"serve", "x", "[y, z]"}, "lorikeet serve: unexpected: [y, z]\n"},
      {{"man", "nothing"}, "lorikeet man: 'lorikeet' has no command 'nothing'"},
      {{"chat", "--url", "ftp://x"}, "lorikeet chat: --url: ftp://x: give http://HOST:PORT or https://HOST:PORT\n"},
      {{"bench", "serve", "--url", "ftp://x"}, "lorikeet bench serve: --url: ftp://x: give http://HOST:PORT"},
      {{"submit", "--zmq-curve-key", "/none", "hi"},
       "lorikeet submit: --zmq-curve-key and --zmq-server-key go together"},
      {{"adapters", "list", "--zmq-server-key", "x"},
       "lorikeet adapters list: --zmq-curve-key and --zmq-server-key go"},
      {{"chat", "--zmq-curve-key", "/none", "--zmq-server-key", "/none"},
       "lorikeet chat: --zmq-curve-key /none: it cannot be read"},
      {{"worker", "--join", "x", "--cluster-dir", "/no/such", "--device", "cpu"},
       "lorikeet worker: --cluster-dir /no/such: it is not a directory\n"},
      {{"serve", tests::source_path("examples/models/tiny-qwen2-gptq-int4").string(), "--device", "cpu", "--nnodes",
        "2", "--cluster-dir", "/no/such"},
       "lorikeet serve: --cluster-dir /no/such: it is not a directory\n"},
      {{"serve", "x", "--port", "abc"}, "lorikeet serve: --port: abc is no number from 0 to 65535\n"},
      {{"serve", "x", "--drain-timeout", "abc"}, "lorikeet serve: --drain-timeout: abc is no number from 0 to 86400\n"},
      {{"serve", "x", "--port", "1", "--port", "2"}, "lorikeet serve: --port: give 1 value, not 2\n"},
      {{"serve", "x", "-tp", "two"}, "lorikeet serve: --tensor-parallel-size: give a number that fits, not two"},
      {{"status", "--zmq", "127.0.0.1:5555"}, "lorikeet status: --zmq: tcp:// is missing: give tcp://127.0.0.1:5555"},
  };
  for (const Mistake& mistake : mistakes) {
    const auto finished = run_lorikeet(mistake.arguments);
    EXPECT_EQ(finished.status, 2) << finished.err;
    EXPECT_THAT(finished.err, StartsWith(mistake.says));
    EXPECT_EQ(finished.out, "");
  }
}

TEST(CommandLine, TakesWordsInBracketsAsTheyAre) {
  struct Taken {
    std::vector<std::string> prompts;
    std::string system;
  } taken;
  int status = 0;
  for (const std::string& text : {"[INST] Hello, you [/INST]", "[]", "[a,b]", "[[a]]"}) {
    CLI::App app{"a test", "test"};
    CLI::App* command = app.add_subcommand("say");
    command->add_option("PROMPT", taken.prompts);
    command->add_option("--system", taken.system);
    EXPECT_EQ(run_command_line(app, {"say", text, "b", "--system", text}, status), 0);
    EXPECT_THAT(taken.prompts, testing::ElementsAre(text, "b"));
    EXPECT_EQ(taken.system, text);
  }
}

TEST(CommandLine, TellsWhatAWorkerLacksInWordsOrAsJson) {
  const tests::TempDir empty;
  std::vector<std::string> arguments = {"worker",   "--join", "127.0.0.1:1", "--cluster-dir", empty.path().string(),
                                        "--device", "cpu"};
  const std::string words = "lorikeet worker: " + (empty.path() / "ca.pem").string() + ": No such file or directory";
  const auto finished = run_lorikeet(arguments);
  EXPECT_EQ(finished.status, 1);
  EXPECT_EQ(finished.err, words + "\n");
  arguments.emplace_back("--log-json");
  const auto line = nlohmann::json::parse(run_lorikeet(arguments).err);
  EXPECT_EQ(line["level"], "error");
  EXPECT_EQ(line["line"], words);
}

TEST(CommandLine, NamesItselfInTheErrorsOfAServer) {
  const auto finished = run_lorikeet({"serve", "/no/such/model"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_EQ(finished.err, "lorikeet serve: there is no directory /no/such/model\n");
}

TEST(CommandLine, HelpsIn80ColumnsWithoutTheParsersNotation) {
  for (const char* command :
       {"serve", "batch", "submit", "status", "inspect", "tokenize", "chat", "completion", "man"}) {
    const auto finished = run_lorikeet({command, "--help"});
    EXPECT_EQ(finished.status, 0);
    std::istringstream lines(finished.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
    for (const char* notation : {"TEXT:{", "{false}", "=auto"})
      EXPECT_EQ(finished.out.find(notation), std::string::npos);
  }
}

TEST(CommandLine, SaysWhatItIsBuiltOf) {
  const std::string version = run_lorikeet({"--version"}).out;
  for (const char* part : {"lorikeet 0.", "(commit ", "CUDA ", "NCCL ", "CAF 0.17.6"}) {
    EXPECT_THAT(version, HasSubstr(part));
  }
}

TEST(CommandLine, TakesFlagsFromAFile) {
  tests::TempDir scratch;
  const std::string file = (scratch / "lorikeet.yaml").string();
  tests::write_file(file, "model: /no/such/model\nmax-model-len: 1k\n");
  EXPECT_THAT(run_lorikeet({"serve", "--config", file}).err, HasSubstr("there is no directory /no/such/model"));
  EXPECT_THAT(run_lorikeet({"serve", "/nor/this", "--config", file}).err, HasSubstr("there is no directory /nor/this"));
  tests::write_file(file, "modell: /no/such/model\n");
  const auto wrong = run_lorikeet({"serve", "--config", file});
  EXPECT_EQ(wrong.status, 2);
  EXPECT_THAT(wrong.err, HasSubstr("line 1: there is no flag 'modell'; did you mean 'model'?"));
}

// What bash would offer behind the words.
std::string completed(const std::string& words) {
  tests::TempDir scratch;
  const std::string lorikeet = std::string(LORIKEET_BINARY_DIR) + "/lorikeet";
  const std::string script = "source <(" + lorikeet + " completion bash); COMP_WORDS=(" + words +
                             "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _lorikeet; echo \"${COMPREPLY[*]}\"";
  tests::write_file(scratch / "script", script);
  EXPECT_EQ(std::system(("bash " + (scratch / "script").string() + " > " + (scratch / "out").string()).c_str()), 0);
  return tests::read_file(scratch / "out");
}

TEST(CommandLine, CompletesItselfInBash) {
  EXPECT_EQ(completed("lorikeet sub"), "submit\n");
  EXPECT_EQ(completed("lorikeet serve --tensor"), "--tensor-parallel-size\n");
  EXPECT_EQ(completed("lorikeet serve --device c"), "cpu cuda\n");
  EXPECT_EQ(completed("lorikeet bench lat"), "latency\n");
}

TEST(CommandLine, HasAManPageForEveryCommand) {
  for (const char* command : {"serve", "submit", "chat", "status"}) {
    const auto page = run_lorikeet({"man", command});
    EXPECT_EQ(page.status, 0);
    EXPECT_THAT(page.out, StartsWith(".TH LORIKEET\\-"));
  }
  EXPECT_THAT(run_lorikeet({"man", "bench", "serve"}).out, HasSubstr("LORIKEET\\-BENCH\\-SERVE"));
}

TEST(CommandLine, TakesHelpAsACommand) {
  EXPECT_EQ(run_lorikeet({"help", "serve"}).out, run_lorikeet({"serve", "--help"}).out);
  EXPECT_THAT(run_lorikeet({"help"}).out, HasSubstr("serve"));
}

}  // namespace
}  // namespace lorikeet::launcher
