#include "launcher/served_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet::launcher {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(ServedSummary, ShowsWhatIsServedWhereAndWhatToTry) {
  actors::ServerOptions options;
  options.served_model_name = "tiny";
  options.tensor_parallel_size = 2;
  options.lora_modules = {{"kjv", "/kjv"}, {"it's", "/moby"}};
  options.http.host = "0.0.0.0";
  const std::string text = served_summary(options, {"tcp://127.0.0.1:5555", 8000, 65536}, Terminal{});
  EXPECT_THAT(text, HasSubstr("  ranks       2 on cpu; the KV cache holds 65,536 tokens\n"));
  EXPECT_THAT(text, HasSubstr("  adapters    kjv, it's\n"));
  EXPECT_THAT(text, HasSubstr("  OpenAI API  http://localhost:8000/v1\n"));
  EXPECT_THAT(text, HasSubstr("  live page   http://localhost:8000/\n"));
  EXPECT_THAT(text, HasSubstr("  lorikeet submit --adapter 'kjv' \"Once upon a time\"\n"));
  EXPECT_THAT(text, HasSubstr("-d '{\"model\": \"kjv\", \"prompt\": \"Once upon a time\"}'"));
  EXPECT_THAT(text, Not(HasSubstr("Authorization")));
}

TEST(ServedSummary, QuotesNamesForTheShellAndNamesTheKey) {
  actors::ServerOptions options;
  options.served_model_name = "tiny";
  options.lora_modules = {{"it's", "/moby"}};
  options.access.credentials.emplace_back().key = "secret";
  options.http.ssl_certfile = "cert.pem";
  const std::string text = served_summary(options, {"ipc:///tmp/zmq", 8000, 1}, Terminal{});
  EXPECT_THAT(text, HasSubstr("lorikeet submit --zmq ipc:///tmp/zmq --adapter 'it'\\''s' "));
  EXPECT_THAT(text,
              HasSubstr("curl https://127.0.0.1:8000/v1/completions -H \"Authorization: Bearer $LORIKEET_API_KEY\""));
  EXPECT_THAT(text, Not(HasSubstr("secret")));
}

TEST(ServedSummary, TriesNoAdapterThatWouldBeRefused) {
  actors::ServerOptions options;
  options.served_model_name = "tiny";
  options.lora_modules = {{"broken", "/broken"}, {"kjv", "/kjv"}};
  const actors::ServerReady ready{"ipc:///tmp/zmq", 8000, 1};
  EXPECT_THAT(served_summary(options, ready, Terminal{}, true, {"broken"}), HasSubstr(" --adapter 'kjv' "));
  EXPECT_THAT(served_summary(options, ready, Terminal{}, true, {"broken", "kjv"}),
              AllOf(HasSubstr(R"("model": "tiny")"), Not(HasSubstr("--adapter"))));
}

TEST(ServedSummary, TriesTokenIdsWhereThereIsNoTokenizer) {
  actors::ServerOptions options;
  options.served_model_name = "tiny";
  const std::string text = served_summary(options, {"ipc:///tmp/zmq", 8000, 1}, Terminal{}, false);
  EXPECT_THAT(text, HasSubstr("lorikeet submit --zmq ipc:///tmp/zmq --prompt-token-ids 1,2,3 --json\n"));
  EXPECT_THAT(text, HasSubstr("-d '{\"model\": \"tiny\", \"prompt\": [1, 2, 3], \"return_token_ids\": true}'"));
}

}  // namespace
}  // namespace lorikeet::launcher
