// examples/clients/lorikeet_client.py against the real server socket: what a client in another language does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "comm/client/zmq_server.h"

namespace lorikeet::comm {
namespace {

using ::testing::HasSubstr;

struct Output {
  std::string text;  // of both streams
  int status = -1;
};

Output run(const std::string& command) {
  Output output;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return output;
  std::array<char, 4096> bytes{};
  for (size_t size = 0; (size = fread(bytes.data(), 1, bytes.size(), pipe)) > 0;)
    output.text.append(bytes.data(), size);
  const int status = pclose(pipe);
  output.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

// The system's Python first: Debian's python3-zmq belongs to it.
std::string python_with_zmq() {
  for (const char* python : {"/usr/bin/python3", "python3"}) {
    if (run(std::string(python) + " -c 'import zmq'").status == 0) return python;
  }
  return "";
}

class PythonClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    python_ = python_with_zmq();
    if (python_.empty()) GTEST_SKIP() << "there is no Python with pyzmq here";
    ZmqServerOptions options;
    options.address = "tcp://127.0.0.1:*";
    ZmqServerCallbacks callbacks;
    callbacks.on_message = [this](ClientId client, ClientMessage message) {
      std::unique_lock lock(mutex_);
      started_.wait(lock, [this] { return server_ != nullptr; });
      if (const auto* request = std::get_if<AdapterRequest>(&message)) return answer(client, *request);
      if (const auto* reset = std::get_if<ResetPrefixCacheRequest>(&message)) {
        return server_->send(client, PrefixCacheReset{reset->id});
      }
      answer(client, std::get<GenerateRequest>(message));
    };
    auto server = ZmqServer::start(options, std::move(callbacks));
    ASSERT_TRUE(server) << server.error().message;
    const std::lock_guard lock(mutex_);
    server_ = *std::move(server);
    started_.notify_all();
  }

  void answer(ClientId client, const GenerateRequest& request) {
    if (request.adapter.value_or("") == "none") {
      server_->send(client, Failure{request.id, "unknown_adapter", "no adapter named \"none\""});
      return;
    }
    if (request.adapter.value_or("") == "unread") {
      server_->send(client, Failure{"", "malformed", "the message could not be read"});
      return;
    }
    if (request.min_tokens == 2 && request.timeout == 2.5 && request.logit_bias.size() == 1) {
      server_->send(
          client,
          Delta{request.id, fmt::format(" {} {}", request.logit_bias[0].first, request.bad_words.at(0)), {1}, {}});
    }
    for (int32_t i = 0; i < request.max_tokens.value_or(0); ++i) {
      server_->send(client, Delta{request.id, fmt::format(" {}\xC3\xA9", i), {i}, {}});
    }
    Done done{request.id, "length", std::nullopt, {}, 1, {}};
    for (int32_t index = 1; index < request.n.value_or(1); ++index) {
      Delta delta{request.id, fmt::format(" of {}", index), {1}, {}};
      done.index = delta.index = index;
      server_->send(client, delta);
      server_->send(client, done);
    }
    done.index = std::nullopt;
    server_->send(client, done);
  }

  void answer(ClientId client, const AdapterRequest& request) {
    if (request.action == "list") {
      server_->send(client, AdapterReply{request.id, "", R"({"adapters": [{"name": "moby", "tier": "slot", "rank": 16,
                                                             "bytes": 4096, "directory": "/moby"}]})"});
    } else if (request.name == "none") {
      server_->send(client, Failure{request.id, "unknown_adapter", "there is none"});
    } else {
      server_->send(
          client,
          AdapterReply{request.id, fmt::format("{} {} {}", request.action, *request.name, request.path.value_or("-")),
                       std::nullopt});
    }
  }

  Output client(const std::string& arguments) const {
    return run(fmt::format("{} {}/examples/clients/lorikeet_client.py --zmq {} {}", python_, LORIKEET_SOURCE_DIR,
                           server_->address(), arguments));
  }

  std::string python_;
  std::mutex mutex_;
  std::condition_variable started_;
  std::unique_ptr<ZmqServer> server_;
};

TEST_F(PythonClientTest, PrintsTheAnswersOfPromptsSentAtOnce) {
  const Output output = client("--max-tokens 3 'one' 'two \xE2\x82\xAC'");
  EXPECT_EQ(output.status, 0) << output.text;
  EXPECT_EQ(output.text,
            "one 0\xC3\xA9 1\xC3\xA9 2\xC3\xA9\n[length]\ntwo \xE2\x82\xAC 0\xC3\xA9 1\xC3\xA9 2\xC3\xA9\n[length]\n");
}

TEST_F(PythonClientTest, SendsAnyFieldOfARequest) {
  const Output output = client(
      R"(--max-tokens 1 --field min_tokens=2 --field timeout=2.5 --field 'logit_bias={"15": -100}' --field 'bad_words=["a"]' 'x')");
  EXPECT_EQ(output.text, "x 15 a 0\xC3\xA9\n[length]\n");
}

TEST_F(PythonClientTest, TellsTheAnswersToOnePromptApart) {
  EXPECT_EQ(client("--max-tokens 1 --n 3 'x'").text, "x of 1\n[length]\nx of 2\n[length]\nx 0\xC3\xA9\n[length]\n");
  const Output output = client("--adapter none --n 2 'one'");
  EXPECT_EQ(output.status, 1);
  EXPECT_EQ(output.text, "0: unknown_adapter: no adapter named \"none\"\n");
}

TEST_F(PythonClientTest, ResetsThePrefixCache) {
  const Output output = client("--reset-prefix-cache");
  EXPECT_EQ(output.status, 0);
  EXPECT_EQ(output.text, "the prefix cache is empty\n");
}

TEST_F(PythonClientTest, ChangesAndShowsAdapters) {
  EXPECT_EQ(client("--load moby=/a=b").text, "load moby /a=b\n");
  EXPECT_EQ(client("--unload moby").text, "unload moby -\n");
  EXPECT_EQ(client("--list").text, "moby: slot, rank 16, 4096 bytes, /moby\n");
  const Output output = client("--unload none");
  EXPECT_EQ(output.status, 1);
  EXPECT_EQ(output.text, "unknown_adapter: there is none\n");
  EXPECT_EQ(client("--list 'a prompt'").status, 2);
}

TEST_F(PythonClientTest, ReportsAFailure) {
  const Output output = client("--adapter none 'one'");
  EXPECT_EQ(output.status, 1);
  EXPECT_THAT(output.text, HasSubstr("0: unknown_adapter: no adapter named \"none\""));
}

TEST_F(PythonClientTest, EndsWhenAFailureNamesNoRequest) {
  const Output output = client("--adapter unread 'one' 'two'");
  EXPECT_EQ(output.status, 1);
  EXPECT_THAT(output.text, HasSubstr("malformed: the message could not be read"));
}

}  // namespace
}  // namespace lorikeet::comm
