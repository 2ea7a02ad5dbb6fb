// A whole server through its socket: exactness under load, processes, failures.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

// What must be the same bits however a request was served.
void expect_same_bits(const std::vector<Answer>& got, const std::vector<Answer>& alone) {
  ASSERT_EQ(got.size(), alone.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_EQ(got[i].final_answers, 1);
    ASSERT_TRUE(got[i].done) << (got[i].failure ? got[i].failure->message : "");
    EXPECT_EQ(got[i].token_ids, alone[i].token_ids);
    EXPECT_EQ(got[i].logprobs, alone[i].logprobs);
    EXPECT_EQ(got[i].done->prompt_logprobs, alone[i].done->prompt_logprobs);
    EXPECT_EQ(got[i].text, alone[i].text);
  }
}

std::vector<Answer> each_alone(const Served& server, const std::vector<comm::GenerateRequest>& requests) {
  std::vector<Answer> answers;
  for (const auto& request : requests) answers.push_back(server.ask(request));
  return answers;
}

TEST(Serve, GivesTheSameBitsAloneAndAllAtOnceInAnyOrder) {
  Served server({"--tp", "2", "--no-enable-prefix-caching"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto requests = golden_generate_requests(read_golden());
  const auto alone = each_alone(server, requests);
  for (const unsigned seed : {1u, 2u}) {
    std::vector<size_t> order(requests.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    std::vector<comm::GenerateRequest> shuffled;
    for (const size_t i : order) shuffled.push_back(requests[i]);
    const auto answers = server.ask(shuffled);
    std::vector<Answer> sorted(answers.size());
    for (size_t i = 0; i < order.size(); ++i) sorted[order[i]] = answers[i];
    expect_same_bits(sorted, alone);
  }
  const auto status = server.status();
  EXPECT_GE(status["engine"]["max_adapters_in_a_plan"].get<int>(), 3) << status;
  EXPECT_EQ(status["engine"]["max_plans_in_flight_seen"].get<int>(), 2) << status;
}

TEST(Serve, GivesTheSameBitsWhenSequencesArePreempted) {
  auto requests = golden_generate_requests(read_golden());
  const size_t plain = requests.size();
  for (size_t i = 0; i < plain; i += 3) requests.push_back(restrained(requests[i]));
  std::vector<Answer> alone;
  {
    Served roomy({"--tp", "2"});
    ASSERT_TRUE(roomy.ready()) << roomy.process().err();
    alone = each_alone(roomy, requests);
  }
  // A block of 16 positions takes 2 * 4 layers * 16 * 128 floats on each of the two ranks: 64 KiB; here are 24 of them.
  Served cramped({"--tp", "2", "--max-model-len", "256", "--kv-cache-memory-bytes", "1536K"});
  ASSERT_TRUE(cramped.ready()) << cramped.process().err();
  expect_same_bits(cramped.ask(requests), alone);
  const auto status = cramped.status();
  EXPECT_GT(status["engine"]["preemptions"].get<int>(), 0) << status;
}

TEST(Serve, GivesTheSameBitsWithPrefixHits) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  auto requests = golden_generate_requests(read_golden());
  for (auto& request : requests) {
    request.prompt_logprobs = false;  // such requests take no hits
    std::vector<int32_t>& prompt = *request.prompt_token_ids;
    const std::vector<int32_t> once = prompt;
    while (prompt.size() < 100) prompt.insert(prompt.end(), once.begin(), once.end());
    request.max_tokens = 8;
    if (&request - requests.data() >= 20) request = restrained(request);
  }
  const auto first = each_alone(server, requests);
  const auto again = server.ask(requests);
  expect_same_bits(again, first);
  int cached = 0;
  for (const Answer& answer : again) cached += answer.done->usage.cached_tokens;
  EXPECT_GT(cached, 28 * 64);
  EXPECT_GT(server.status()["engine"]["prefix_hit_tokens"].get<int>(), 0);
}

TEST(Serve, DrawsTheSameTokensForTheSameSeedInAnyCompany) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<comm::GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    comm::GenerateRequest request =
        greedy_request("The captain said", i % 3 == 0 ? std::nullopt : std::optional<std::string>("moby"), 24);
    request.temperature = 0.8 + 0.05 * i;
    request.seed = 1000 + static_cast<uint64_t>(i);
    if (i % 2 == 0) request.top_k = 20;
    if (i % 4 == 1) request.top_p = 0.9;
    if (i % 5 == 2) request.min_p = 0.05;
    if (i % 3 == 1) request.frequency_penalty = 0.5;
    if (i % 4 == 3) request = restrained(request);
    requests.push_back(request);
  }
  expect_same_bits(server.ask(requests), each_alone(server, requests));
}

TEST(Serve, GivesSeveralAnswersToOneRequestAsItWouldToSeveral) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  comm::GenerateRequest request = greedy_request("The captain said", "moby", 12);
  request.temperature = 0.9;
  std::vector<std::string> alone;
  for (uint64_t i = 0; i < 4; ++i) {
    request.seed = 1000 + i;
    alone.push_back(server.ask(request).text);
  }
  EXPECT_NE(alone[0], alone[1]);
  request.seed = 1000;
  request.n = 4;
  for (const auto encoding : {comm::Encoding::cereal, comm::Encoding::json}) {
    const auto client = comm::ZmqClient::connect(server.address(), encoding).value();
    ASSERT_TRUE(client->send(request));
    std::vector<std::string> texts(4);
    size_t ended = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (ended < 4 && std::chrono::steady_clock::now() < end) {
      const auto message = client->receive(std::chrono::milliseconds(200));
      if (!message) continue;
      ASSERT_FALSE(std::holds_alternative<comm::Failure>(*message)) << std::get<comm::Failure>(*message).message;
      if (const auto* delta = std::get_if<comm::Delta>(&*message)) {
        texts.at(static_cast<size_t>(delta->index.value_or(-1))) += delta->text;
      } else if (const auto* done = std::get_if<comm::Done>(&*message)) {
        EXPECT_EQ(done->seed, 1000 + static_cast<uint64_t>(done->index.value_or(-1)));
        ++ended;
      }
    }
    EXPECT_EQ(texts, alone);
  }
}

TEST(Serve, ForgetsItsPrefixesWhereAClientAsksForThat) {
  Served server;
  ASSERT_TRUE(server.ready()) << server.process().err();
  comm::GenerateRequest request = greedy_request("", std::nullopt, 1);
  request.prompt = std::nullopt;
  request.prompt_token_ids = std::vector<int32_t>(100, 7);
  const auto cached = [&] { return server.ask(request).done.value().usage.cached_tokens; };
  EXPECT_EQ(cached(), 0);
  for (const auto encoding : {comm::Encoding::cereal, comm::Encoding::json}) {
    EXPECT_GT(cached(), 64);
    const auto client = comm::ZmqClient::connect(server.address(), encoding).value();
    ASSERT_TRUE(client->send(comm::ResetPrefixCacheRequest{"r"}));
    const auto answer = client->receive(std::chrono::seconds(60));
    ASSERT_TRUE(answer && std::holds_alternative<comm::PrefixCacheReset>(*answer));
    EXPECT_EQ(std::get<comm::PrefixCacheReset>(*answer).id, "r");
    EXPECT_EQ(cached(), 0);
  }
}

TEST(Serve, RunsEveryPartInAProcessOfItsOwnAndLeavesNoneBehind) {
  for (const int number : {SIGINT, SIGTERM, SIGKILL}) {
    SCOPED_TRACE(number);
    Served server({"--tp", "2"});
    ASSERT_TRUE(server.ready()) << server.process().err();
    const auto status = server.status();
    std::set<int> pids = {server.process().pid(), status["head"]["pid"].get<int>()};
    for (const auto& rank : status["ranks"]) pids.insert(rank["pid"].get<int>());
    EXPECT_EQ(pids.size(), 4u) << status;
    const auto children = descendants_of(server.process().pid());
    EXPECT_GE(children.size(), 3u);
    server.process().signal(number);
    EXPECT_EQ(server.process().wait(), number == SIGKILL ? 128 + SIGKILL : 0) << server.process().err();
    EXPECT_TRUE(wait_until_gone(children));
  }
}

TEST(Serve, EndsEveryRequestOfARankThatDiesAndServesTheNextOnes) {
  Served server({"--tp", "2"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto client = server.connect();
  for (int i = 0; i < 4; ++i) {
    auto request = greedy_request("Call me", i % 2 == 0 ? std::nullopt : std::optional<std::string>("moby"), 400);
    request.id = std::to_string(i);
    EXPECT_TRUE(client->send(request).has_value());
  }
  while (true) {  // until tokens stream
    const auto message = client->receive(std::chrono::seconds(30));
    ASSERT_TRUE(message.has_value());
    if (std::holds_alternative<comm::Delta>(*message)) break;
  }
  const auto status = server.status();
  kill(status["ranks"][1]["pid"].get<int>(), SIGKILL);
  for (const Answer& answer : collect(*client, 4)) EXPECT_EQ(answer.final_answers, 1);
  const Answer after = server.ask(greedy_request("Call me", "moby", 8));
  ASSERT_TRUE(after.done) << (after.failure ? after.failure->message : "no answer");
  EXPECT_EQ(after.done->usage.completion_tokens, 8);
}

TEST(Serve, StreamsOtherRequestsWhileAnAdapterIsHeldUp) {
  TempDir scratch;
  const std::string release = (scratch / "release").string();
  Served server({"--tp", "2", "--test-hooks", "hold_adapter_load=kjv,release_file=" + release});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto held = server.connect();
  EXPECT_TRUE(held->send(greedy_request("And it came to pass", "kjv", 4)).has_value());
  const Answer other = server.ask(greedy_request("The whale", "moby", 32));
  ASSERT_TRUE(other.done) << (other.failure ? other.failure->message : "no answer");
  const auto message = held->receive(std::chrono::milliseconds(0));
  EXPECT_FALSE(message.has_value());
  write_file(release, "");
  const auto answers = collect(*held, 1);
  EXPECT_TRUE(answers[0].done.has_value());
}

TEST(Serve, EvictsTheLeastRecentlyUsedAdapterFromItsSlot) {
  Served server({"--tp", "2", "--max-loras", "1"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<comm::GenerateRequest> requests;
  for (const char* adapter : {"moby", "kjv", "shakespeare", "moby", "kjv", "shakespeare"}) {
    requests.push_back(greedy_request("The sea and the land", std::string(adapter), 12));
  }
  const auto together = server.ask(requests);
  expect_same_bits(together, each_alone(server, requests));
  int resident = 0;
  const auto status = server.status();
  for (const auto& adapter : status["adapters"]) resident += adapter["slot"].is_number() ? 1 : 0;
  EXPECT_LE(resident, 1) << status;
}

TEST(Serve, RefusesWithASentenceWhatCannotBeServed) {
  const auto model = source_path("examples/models/tiny-qwen2-gptq-int4").string();
  struct Case {
    std::vector<std::string> flags;
    std::string sentence;
  };
  const Case cases[] = {
      {{"serve", "--model", "/nowhere"}, "/nowhere"},
      {{"serve", "--model", model, "--tp", "3"}, "3"},
      {{"serve", "--model", model, "--lora-modules", "a=/nowhere"}, "/nowhere is not a directory"},
      {{"serve", "--model", model, "--lora-modules", "a"}, "NAME=DIR"},
      {{"serve", "--model", model, "--max-model-len", "99999999"}, "--max-model-len"},
      {{"serve", "--model", model, "--pipeline-parallel-size", "2"}, "--tensor-parallel-size"},
      {{"serve", "--model", model, "--quantization", "awq"}, "the checkpoint is gptq"},
      {{"serve", "--model", model, "--kv-cache-memory-bytes", "12Q"}, "12Q"},
  };
  for (const Case& c : cases) {
    const Finished run = run_lorikeet(c.flags);
    EXPECT_NE(run.status, 0) << c.sentence;
    EXPECT_NE((run.err + run.out).find(c.sentence), std::string::npos) << c.sentence << "\n" << run.err << run.out;
  }
}

TEST(Serve, LetsZmqsClientsInByTheirKeysOfCurve) {
  TempDir scratch;
  const auto made = [&](const std::string& name) {
    const std::string path = (scratch / name).string();
    const Finished run = run_lorikeet({"keygen", path});
    EXPECT_EQ(run.status, 0) << run.err;
    return std::pair{path, run.out.substr(0, run.out.find('\n'))};
  };
  const auto [server_file, server_key] = made("server");
  const auto [client_file, client_key] = made("client");
  const auto [strange_file, strange_key] = made("stranger");
  EXPECT_EQ(run_lorikeet({"keygen", client_file}).status, 1) << "it never replaces a pair";
  write_file(scratch / "clients", client_key + " acme\n");
  Served server({"--zmq-curve-key", server_file, "--zmq-curve-clients", (scratch / "clients").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::string said;
  const auto status = [&](std::vector<std::string> keys) {
    keys.insert(keys.begin(), {"status", "--json", "--timeout", "1", "--zmq", server.address()});
    const Finished finished = run_lorikeet(keys);
    said = finished.err;
    return finished.status;
  };
  write_file(scratch / "server.pub", server_key + "\n");
  EXPECT_EQ(status({"--zmq-curve-key", client_file, "--zmq-server-key", server_key}), 0);
  EXPECT_EQ(status({"--zmq-curve-key", client_file, "--zmq-server-key", server_file}), 0);
  EXPECT_EQ(status({"--zmq-curve-key", client_file, "--zmq-server-key", (scratch / "server.pub").string()}), 0) << said;
  EXPECT_EQ(status({"--zmq-curve-key", strange_file, "--zmq-server-key", server_key}), 1);
  EXPECT_NE(said.find("does not take the key of --zmq-curve-key"), std::string::npos) << said;
  EXPECT_EQ(status({"--zmq-curve-key", client_file, "--zmq-server-key", strange_key}), 1);
  EXPECT_NE(said.find("is not the server of --zmq-server-key"), std::string::npos) << said;
  EXPECT_EQ(status({}), 1);
  EXPECT_NE(said.find("asks for a key: give --api-key"), std::string::npos) << said;
  const std::string python = "/usr/bin/python3 " + source_path("examples/clients/lorikeet_client.py").string() +
                             " --zmq " + server.address() + " --max-tokens 2 --curve-key " + client_file +
                             " --server-key '" + server_key + "' x > /dev/null";
  EXPECT_EQ(std::system(python.c_str()), 0);
}

TEST(Serve, WarnsAtStartOfAnAdapterWithoutItsConfiguration) {
  TempDir empty;
  Served server({"--lora-modules", "none=" + (empty / ".").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  EXPECT_NE(server.process().err().find("warning: adapter none: there is no "), std::string::npos)
      << server.process().err();
}

TEST(Serve, TellsThatItsAddressIsTaken) {
  Served first({"--tp", "1"});
  ASSERT_TRUE(first.ready()) << first.process().err();
  const std::string held = first.status()["zmq"].get<std::string>();
  TempDir scratch;
  std::vector<std::string> flags = {"serve", "--zmq", "tcp://127.0.0.1:0", "--no-http"};
  flags.insert(flags.end(), example_flags().begin(), example_flags().end());
  Process second(flags, scratch, "second");
  ASSERT_TRUE(second.wait_for_output("serving ")) << second.err();
  const std::string out = second.out();
  const std::string address = out.substr(out.find("tcp://"), out.find('\n', out.find("tcp://")) - out.find("tcp://"));
  flags[2] = address;
  const Finished third = run_lorikeet(flags);
  EXPECT_NE(third.status, 0);
  EXPECT_NE(third.err.find(address), std::string::npos) << third.err;
}

}  // namespace
}  // namespace lorikeet::tests
