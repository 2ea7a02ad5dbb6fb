// What people see of the built `lorikeet` in terminals of several sizes, and what programs get in pipes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/launcher/served.h"
#include "tests/launcher/terminal_process.h"

namespace lorikeet::tests {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// One server for all tests: they look at clients.
class PeopleTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new Served({"--tp", "2"}); }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  void SetUp() override { ASSERT_TRUE(server_->ready()); }

  static std::vector<std::string> to_server(const std::string& command, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {command, "--zmq", server_->address()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  static inline Served* server_ = nullptr;
};

TEST_F(PeopleTest, APipeGetsTheAnswerAndNothingBesideIt) {
  const auto finished = run_lorikeet(to_server("submit", {"--max-tokens", "8", "--seed", "7", "Call me"}));
  EXPECT_EQ(finished.status, 0);
  EXPECT_THAT(finished.out, Not(HasSubstr("[")));
  EXPECT_EQ(finished.out.back(), '\n');
  EXPECT_EQ(finished.err, "");
}

TEST_F(PeopleTest, AnAnswerIsALineOfJsonWhereThatIsAskedFor) {
  const auto finished = run_lorikeet(to_server("submit", {"--json", "--logprobs", "2", "--max-tokens", "3", "--seed",
                                                          "7", "--n", "2", "--adapter", "kjv", "And it"}));
  EXPECT_EQ(finished.status, 0) << finished.err;
  std::istringstream lines(finished.out);
  std::vector<json> answers;
  for (std::string line; std::getline(lines, line);) answers.push_back(json::parse(line));
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0]["id"], 0);
  EXPECT_EQ(answers[0]["seed"], 7);
  EXPECT_EQ(answers[1]["seed"], 8);
  EXPECT_EQ(answers[0]["token_ids"].size(), 3u);
  EXPECT_EQ(answers[0]["logprobs"].size(), 3u);
  EXPECT_TRUE(answers[0]["error"].is_null());
}

TEST_F(PeopleTest, APromptAndTheEndOfItsAnswerMayBeTokenIds) {
  const auto submit = [](std::vector<std::string> more) {
    const std::vector<std::string> greedy = {"--json", "--temperature", "0", "--ignore-eos", "--max-tokens", "6"};
    more.insert(more.end(), greedy.begin(), greedy.end());
    const auto finished = run_lorikeet(to_server("submit", more));
    EXPECT_EQ(finished.status, 0) << finished.err;
    return json::parse(finished.out, nullptr, false);
  };
  const json free = submit({"--prompt-token-ids", "[5, 17,301]"});
  ASSERT_EQ(free["token_ids"].size(), 6u) << free;
  EXPECT_EQ(free["usage"]["prompt_tokens"], 3);
  const int last = free["token_ids"][5];
  const json stopped = submit({"--prompt-token-ids", "5,17,301", "--stop-token-ids", std::to_string(last)});
  EXPECT_EQ(stopped["stop_reason"], last);
  EXPECT_LE(stopped["token_ids"].size(), 6u);
  EXPECT_EQ(stopped["token_ids"].back(), last);
}

TEST_F(PeopleTest, AnUnknownAdapterIsAnsweredWithThoseThatAreServed) {
  const auto finished = run_lorikeet(to_server("submit", {"--adapter", "mobi", "Call me"}));
  EXPECT_EQ(finished.status, 1);
  EXPECT_THAT(finished.err,
              HasSubstr("lorikeet submit: there is no adapter \"mobi\"; did you mean \"moby\"? 3 are served: "
                        "\"shakespeare\", \"kjv\", \"moby\""));
}

TEST_F(PeopleTest, ATalkWithAnUnknownAdapterIsRefusedBeforeItBegins) {
  const auto finished = run_lorikeet(to_server("chat", {"--adapter", "mobi"}));
  EXPECT_EQ(finished.status, 1);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, StartsWith("lorikeet chat: there is no adapter mobi; did you mean moby? served: "));
}

// Over HTTP a server may answer to more names than /v1/models lists, as ours does to BASE:ADAPTER.
TEST_F(PeopleTest, ATalkOverHttpWithAnAdapterThatIsNotListedBeginsWithAWarning) {
  TerminalProcess listed({"chat", "--url", server_->http_url(), "--adapter", "mobi"}, 80, 24);
  EXPECT_TRUE(listed.wait_for("warning: /v1/models does not list mobi; did you mean moby? served: "));
  ASSERT_TRUE(listed.wait_for("mobi> ")) << listed.shown();
  listed.type("\x04");
  EXPECT_EQ(listed.wait(), 0);
  TerminalProcess whole({"chat", "--url", server_->http_url(), "--adapter", "tiny-qwen2-gptq-int4:moby", "--max-tokens",
                         "2", "--seed", "7"},
                        80, 24);
  EXPECT_TRUE(whole.wait_for("warning: /v1/models does not list tiny-qwen2-gptq-int4:moby; "));
  ASSERT_TRUE(whole.wait_for("moby> ")) << whole.shown();
  whole.type("Where to?\n");
  EXPECT_TRUE(whole.wait_for("[ended after 2 tokens")) << whole.shown();
  ASSERT_TRUE(whole.wait_for("moby> "));
  whole.type("\x04");
  EXPECT_EQ(whole.wait(), 0);
}

TEST_F(PeopleTest, ATerminalShowsSeveralAnswersBehindLabelsThatDiffer) {
  TerminalProcess submit(
      to_server("submit", {"--max-tokens", "24", "--seed", "7", "--adapter", "kjv", "And it came", "In the beginning"}),
      80, 24);
  EXPECT_EQ(submit.wait(), 0);
  EXPECT_THAT(submit.shown(), HasSubstr("And it came     \x1b[0m | "));
  EXPECT_THAT(submit.shown(), HasSubstr("In the beginning\x1b[0m | "));
  EXPECT_THAT(submit.shown(), HasSubstr("24 tokens, seed 7]"));
  EXPECT_LE(widest_line(submit.shown()), 80u);
}

TEST_F(PeopleTest, ATerminalWithoutColoursGetsNoCodes) {
  TerminalProcess submit(to_server("submit", {"--max-tokens", "4", "--adapter", "kjv", "--adapter", "moby", "It was"}),
                         200, 50, {"NO_COLOR=1"});
  EXPECT_EQ(submit.wait(), 0);
  EXPECT_THAT(submit.shown(), HasSubstr("kjv  | "));
  EXPECT_THAT(submit.shown(), Not(HasSubstr("\x1b[")));
}

TEST_F(PeopleTest, StatusFitsTheTerminalAndWatchShowsRates) {
  TerminalProcess status(to_server("status", {}), 80, 24);
  EXPECT_EQ(status.wait(), 0);
  EXPECT_LE(widest_line(status.shown()), 80u);
  EXPECT_THAT(status.shown(), HasSubstr("tiny-qwen2-gptq-int4"));
  TerminalProcess watch(to_server("status", {"--watch", "0.1"}), 200, 50);
  EXPECT_TRUE(watch.wait_for("tokens/s generated"));
  watch.type("\x03");
  EXPECT_EQ(watch.wait(), 128 + SIGINT);
}

TEST_F(PeopleTest, StatusGivesRawValuesAsJson) {
  const auto finished = run_lorikeet(to_server("status", {"--json"}));
  EXPECT_EQ(finished.status, 0);
  EXPECT_TRUE(json::parse(finished.out)["steps"]["decode_idle"].is_array());
}

TEST_F(PeopleTest, ServeSaysWhatIsServedWhereAndLoadsInFewLines) {
  const std::string err = server_->process().err();
  EXPECT_THAT(err, HasSubstr("layers on 2 ranks in "));
  EXPECT_THAT(err, Not(HasSubstr("rank 0: layer")));
  EXPECT_THAT(err, HasSubstr("  adapters    shakespeare, kjv, moby\n"));
  EXPECT_THAT(err, HasSubstr("lorikeet submit --zmq " + server_->address() + " --adapter 'shakespeare'"));
}

TEST_F(PeopleTest, ChatTalksThroughSeveralAdapters) {
  TerminalProcess chat(to_server("chat", {"--adapter", "kjv", "--max-tokens", "8", "--seed", "7"}), 80, 24);
  ASSERT_TRUE(chat.wait_for("kjv> ")) << chat.shown();
  chat.type("Hello\n");
  ASSERT_TRUE(chat.wait_for("[ended after 8 tokens")) << chat.shown();
  ASSERT_TRUE(chat.wait_for("kjv> "));
  chat.type("/adapter mobi\n");
  ASSERT_TRUE(chat.wait_for("did you mean moby?")) << chat.shown();
  ASSERT_TRUE(chat.wait_for("kjv> "));
  chat.type("/adapter moby\n");
  ASSERT_TRUE(chat.wait_for("moby> ")) << chat.shown();
  chat.type("not sent\x03");  // the line is dropped
  ASSERT_TRUE(chat.wait_for("moby> ")) << chat.shown();
  chat.type("\x04");
  EXPECT_EQ(chat.wait(), 0);
  EXPECT_EQ(server_->status()["live_requests"], 0);
}

TEST_F(PeopleTest, CtrlCEndsAnAnswerAndNotTheChat) {
  TerminalProcess chat(to_server("chat", {"--max-tokens", "1900", "--ignore-eos"}), 80, 24);
  ASSERT_TRUE(chat.wait_for("> "));
  chat.type("Hello\n");
  for (int i = 0; i < 600 && server_->status()["engine"]["running"] == 0; ++i) {
  }
  chat.type("\x03");
  ASSERT_TRUE(chat.wait_for("[stopped]")) << chat.shown();
  ASSERT_TRUE(chat.wait_for("> "));
  chat.type("/quit\n");
  EXPECT_EQ(chat.wait(), 0);
}

TEST_F(PeopleTest, ChatAnswersThePipeAsWell) {
  TempDir scratch;
  write_file(scratch / "talk", "Hello\n/retry\n");
  const std::string command = std::string(LORIKEET_BINARY_DIR) + "/lorikeet chat --max-tokens 4 --seed 7 --url " +
                              server_->http_url() + " < " + (scratch / "talk").string() + " > " +
                              (scratch / "answers").string();
  EXPECT_EQ(std::system(command.c_str()), 0);
  const std::string answers = read_file(scratch / "answers");
  EXPECT_EQ(answers.size() % 2, 0u);
  EXPECT_EQ(answers.substr(0, answers.size() / 2), answers.substr(answers.size() / 2)) << "the same seed";
  EXPECT_GT(answers.size(), 2u);
}

TEST_F(PeopleTest, TheLivePageShowsTheServerInABrowser) {
  if (!std::filesystem::exists("/usr/bin/chromium")) GTEST_SKIP() << "there is no Chromium";
  server_->ask(greedy_request("Call me", "moby", 4));
  TempDir scratch;
  // In the browser's own time four seconds pass, in which the page looks twice.
  const std::string command =
      "/usr/bin/chromium --headless=new --no-sandbox --disable-gpu --virtual-time-budget=4000 " +
      ("--user-data-dir=" + (scratch / "profile").string()) + " --dump-dom " + server_->http_url() + "/ > " +
      (scratch / "page").string() + " 2> /dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const std::string page = read_file(scratch / "page");
  for (const char* shown : {">serving</p>", "tiny-qwen2-gptq-int4</span>", "0 running", "data-name=\"1 (cpu)\"",
                            "data-name=\"moby\"", "on the ranks", "aria-label=\"unload moby\"", "value=\"kjv\""}) {
    EXPECT_THAT(page, HasSubstr(shown));
  }
}

// Whoever fails (the command line, the launcher, the head, a rank): what people read begins with the command.
TEST(People, ReadEveryReasonBehindTheNameOfTheCommand) {
  const std::string model = source_path("examples/models/tiny-qwen2-gptq-int4").string();
  const Served served;
  ASSERT_TRUE(served.ready());
  TempDir scratch;
  write_file(scratch / "in.jsonl", "{\"id\": 1, \"prompt\": \"a\"}\n");
  const std::string in = (scratch / "in.jsonl").string(), out = (scratch / "out.jsonl").string();
  const std::string zmq = "ipc://" + (scratch / "zmq").string();
  struct Case {
    std::vector<std::string> arguments;
    std::string line;
    int status;
  };
  const std::vector<Case> cases = {
      {{"serve", model, "--zmq", zmq, "--port", std::to_string(served.http_port())},
       "lorikeet serve: cannot listen on 127.0.0.1 port ",
       1},
      {{"serve", model, "--zmq", served.address(), "--port", "0"}, "lorikeet serve: cannot listen on ipc://", 1},
      {{"serve", model, "--zmq", zmq, "--port", "0", "--kv-cache-memory-bytes", "10"},
       "lorikeet serve: rank 0: 10 bytes of KV cache hold no block",
       1},
      {{"batch", model, "--kv-cache-memory-bytes", "10", "--input", in, "--output", out},
       "lorikeet batch: rank 0: 10 bytes of KV cache hold no block",
       1},
      {{"batch", model, "--input", in + ".none", "--output", out}, "lorikeet batch: ", 1},
      {{"bench", "latency", model, "--kv-cache-memory-bytes", "10"}, "lorikeet bench latency: rank 0: 10 bytes", 1},
      {{"serve"}, "lorikeet serve: ", 2},
      {{"serve", model, "--prot", "1"}, "lorikeet serve: there is no '--prot'; did you mean '--port'?", 2},
      {{"serve", "/nowhere"}, "lorikeet serve: ", 2},
      {{"serve", model, "--max-model-len", "many"}, "lorikeet serve: ", 2},
      {{"inspect", "/nowhere"}, "lorikeet inspect: ", 1},
      {{"submit", "--zmq", "127.0.0.1:5555", "a"}, "lorikeet submit: ", 2},
      {{"sreve"}, "lorikeet: there is no command 'sreve'; did you mean 'serve'?", 2},
  };
  for (const Case& c : cases) {
    TerminalProcess process(c.arguments, 80, 24, {"NO_COLOR=1"});
    EXPECT_EQ(process.wait(), c.status) << process.shown();
    const std::string shown = "\n" + process.shown();
    EXPECT_NE(shown.find("\n" + c.line), std::string::npos) << c.line << "\nis not in" << shown;
  }
}

TEST(People, ReadOfALostRankBehindTheNameOfTheCommand) {
  Served served({"--tp", "2"});
  ASSERT_TRUE(served.ready());
  ASSERT_EQ(kill(served.status()["ranks"][1]["pid"].get<pid_t>(), SIGKILL), 0);
  while (served.process().running() && served.status()["epoch"].get<int>() < 2) {
  }
  const std::string err = served.process().err();
  EXPECT_THAT(err, HasSubstr("\nlorikeet serve: rank 1 was killed by signal 9\n"));
}

TEST(People, ReadOfEveryRequestThatALostServerHad) {
  Served served;
  ASSERT_TRUE(served.ready());
  TempDir scratch;
  for (const bool as_json : {false, true}) {
    std::vector<std::string> arguments = {"submit", "--zmq", served.address(), "--max-tokens", "1900", "--ignore-eos",
                                          "one",    "two"};
    if (as_json) arguments.emplace_back("--json");
    Process submit(arguments, scratch, as_json ? "json" : "text");
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    int running = 0;
    while (running != 2 && submit.running() && std::chrono::steady_clock::now() < limit) {
      running = served.status()["engine"]["running"];
    }
    ASSERT_EQ(running, 2) << submit.err();
    ASSERT_EQ(kill(served.status()["head"]["pid"].get<pid_t>(), SIGKILL), 0);
    EXPECT_EQ(submit.wait(), 1);
    const std::string said = as_json ? submit.out() : submit.err();
    size_t lost = 0;
    std::istringstream lines(said);
    for (std::string line; std::getline(lines, line);) {
      lost += as_json ? json::parse(line)["error"]["code"] == "server_lost" : line.ends_with(" [server_lost]");
    }
    EXPECT_EQ(lost, 2U) << said;
  }
}

TEST(People, ReadThatAnAnswerOfTokenIdsHasNoText) {
  TempDir scratch;
  std::filesystem::create_directory(scratch / "model");
  for (const auto& entry : std::filesystem::directory_iterator(source_path("examples/models/tiny-qwen2-gptq-int4"))) {
    const std::string name = entry.path().filename().string();
    const bool of_text = name.rfind("tokenizer", 0) == 0 || name == "vocab.json" || name == "merges.txt";
    if (!of_text) std::filesystem::copy(entry.path(), scratch / "model" / name);
  }
  Served served({"--model", (scratch / "model").string()});
  ASSERT_TRUE(served.ready()) << served.process().err();
  EXPECT_THAT(served.process().err(),
              HasSubstr("model has no tokenizer: requests carry prompt_token_ids, and answers"));
  EXPECT_THAT(served.process().err(), HasSubstr("--prompt-token-ids 1,2,3 --json"));
  const auto finished = run_lorikeet(
      {"submit", "--zmq", served.address(), "--prompt-token-ids", "5,6", "--max-tokens", "3", "--ignore-eos"});
  EXPECT_EQ(finished.status, 0);
  EXPECT_EQ(finished.out, "");
  EXPECT_EQ(finished.err, "lorikeet submit: 3 tokens without text (--json shows the ids)\n");
  const auto two = run_lorikeet({"submit", "--zmq", served.address(), "--prompt-token-ids", "5,6", "--adapter", "kjv",
                                 "--adapter", "moby", "--max-tokens", "3", "--ignore-eos"});
  for (const char* label : {"kjv", "moby"}) {
    EXPECT_THAT(two.err, HasSubstr(std::string("lorikeet submit: ") + label + ": 3 tokens without text (--json"));
  }
}

TEST(People, AreToldWithinTwoSecondsThatNoServerRuns) {
  TempDir scratch;
  for (const std::string command : {"submit", "status"}) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::string> arguments = {command, "--zmq", "ipc://" + (scratch / "none").string()};
    if (command == "submit") arguments.emplace_back("Hello");
    const auto finished = run_lorikeet(arguments);
    EXPECT_EQ(finished.status, 1);
    EXPECT_THAT(finished.err, HasSubstr("is a server running there"));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5)) << "1.5 s on an idle machine";
  }
}

}  // namespace
}  // namespace lorikeet::tests
