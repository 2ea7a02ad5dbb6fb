// A running server and what people may give it: rubbish on its socket, adapters and checkpoints that are none. Each is
// answered with its own sentence, and nothing else is lost.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>

#include "comm/codec/codec.h"
#include "tests/comm/client/raw_peer.h"
#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

namespace fs = std::filesystem;

// A safetensors file: the length of its header (8 bytes, little endian), the header, the data.
struct Safetensors {
  std::string header, data;

  static Safetensors of(const fs::path& file) {
    const std::string bytes = read_file(file.string());
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    return {bytes.substr(8, size), bytes.substr(8 + size)};
  }
  std::string bytes() const {
    const uint64_t size = header.size();
    std::string out(sizeof(size), '\0');
    std::memcpy(out.data(), &size, sizeof(size));
    return out + header + data;
  }
};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A copy of a directory of which one file is another.
fs::path copy_with(const fs::path& directory, const fs::path& to, const std::string& file, const std::string& content) {
  fs::create_directories(to);
  fs::copy(directory, to, fs::copy_options::recursive);
  write_file((to / file).string(), content);
  return to;
}

void expect_served(const Served& server, const std::optional<std::string>& adapter) {
  const Answer answer = server.ask(greedy_request("The whale", adapter, 4));
  ASSERT_TRUE(answer.done) << (answer.failure ? answer.failure->message : "no answer");
  EXPECT_EQ(answer.done->usage.completion_tokens, 4);
}

// An adapter whose training diverged: every value is finite, and what it computes is not.
fs::path write_diverged_adapter(const fs::path& directory) {
  constexpr int kLayers = 4, kHidden = 512;
  Safetensors diverged;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const char* matrix : {"A", "B"}) {
      const std::vector<float> values(kHidden, 1e30F);
      const size_t begin = diverged.data.size(), bytes = values.size() * sizeof(float);
      diverged.data.append(reinterpret_cast<const char*>(values.data()), bytes);
      diverged.header += (diverged.header.empty() ? "{" : ",") + std::string("\"base_model.model.model.layers.") +
                         std::to_string(layer) + ".self_attn.o_proj.lora_" + matrix +
                         ".weight\":{\"dtype\":\"F32\",\"shape\":" + (*matrix == 'A' ? "[1,512]" : "[512,1]") +
                         ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(begin + bytes) + "]}";
    }
  }
  diverged.header += "}";
  copy_with(source_path("examples/models/adapters/moby"), directory, "adapter_model.safetensors", diverged.bytes());
  auto config = nlohmann::json::parse(read_file((directory / "adapter_config.json").string()));
  config["r"] = 1;
  config["target_modules"] = {"o_proj"};
  write_file((directory / "adapter_config.json").string(), config.dump());
  return directory;
}

TEST(Hostile, AnAdapterThatDivergedFailsItsOwnRequestsAlone) {
  TempDir scratch;
  Served server({"--tp", "2", "--lora-modules", "wild=" + write_diverged_adapter(scratch / "wild").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<comm::GenerateRequest> requests;
  for (const char* adapter : {"", "moby", "kjv"}) {
    requests.push_back(greedy_request("Call me", *adapter ? std::optional<std::string>(adapter) : std::nullopt, 200));
    requests.back().ignore_eos = true;
  }
  const auto alone = server.ask(requests);
  requests.push_back(greedy_request("Call me", "wild", 8));
  requests.push_back(greedy_request("Call me Ishmael", "wild", 8));
  requests.back().temperature = 1;
  requests.back().prompt_logprobs = true;
  const auto together = server.ask(requests);
  for (size_t i = 0; i < alone.size(); ++i) {
    ASSERT_TRUE(together[i].done) << (together[i].failure ? together[i].failure->message : "no answer");
    EXPECT_EQ(together[i].token_ids, alone[i].token_ids) << "request " << i;
  }
  for (size_t i = alone.size(); i < together.size(); ++i) {
    ASSERT_TRUE(together[i].failure);
    EXPECT_EQ(together[i].failure->code, "no_token");
    EXPECT_NE(together[i].failure->message.find("adapter wild: there is no token for position "), std::string::npos)
        << together[i].failure->message;
    EXPECT_TRUE(together[i].token_ids.empty());
  }
  const auto status = server.status();
  EXPECT_EQ(status["epoch"], 1) << "no rank was ended";
  EXPECT_EQ(status["engine"]["blocks_free"], status["engine"]["blocks_total"]);
}

TEST(Hostile, AnAdapterThatDivergedIsSetAsideAsTheStatusSaysUntilItIsReplaced) {
  TempDir scratch;
  const fs::path wild = write_diverged_adapter(scratch / "wild");
  Served server({"--tp", "2", "--lora-modules", "wild=" + wild.string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto error = [&server] {
    const auto status = server.status();
    for (const auto& adapter : status["adapters"]) {
      if (adapter["name"] == "wild") return adapter["error"].is_null() ? "" : adapter["error"].get<std::string>();
    }
    return std::string("there is no such adapter");
  };
  const auto code = [&server] {
    const Answer answer = server.ask(greedy_request("Call me", "wild", 4));
    return answer.failure ? answer.failure->code : "served";
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(error(), "");
    EXPECT_EQ(code(), "no_token");
  }
  EXPECT_NE(error().find("set aside, since 3 requests in a row ended without a token"), std::string::npos) << error();
  EXPECT_EQ(code(), "adapter_failed") << "without a step of the ranks";
  expect_served(server, "moby");
  const fs::path moby = source_path("examples/models/adapters/moby");
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
    fs::copy(moby / file, scratch / "next");
    fs::rename(scratch / "next", wild / file);
  }
  EXPECT_EQ(code(), "served");
  EXPECT_EQ(error(), "");
}

// What a rank computes with is what it checked, whatever becomes of the files.
TEST(Hostile, ACheckpointThatIsWrittenOverOrCutShortWhileItServesChangesNoAnswer) {
  TempDir scratch;
  const fs::path model = scratch / "model";
  fs::copy(source_path("examples/models/tiny-qwen2-gptq-int4"), model, fs::copy_options::recursive);
  Served server({"--model", model.string(), "--tp", "2", "--no-enable-prefix-caching"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  std::vector<comm::GenerateRequest> requests;
  for (const char* prompt : {"Call me", "The whale", "It was a dark night and"}) {
    requests.push_back(greedy_request(prompt, std::nullopt, 24));
    requests.back().logprobs = 2;
  }
  const auto before = server.ask(requests);
  const auto expect_the_same = [&] {
    const auto after = server.ask(requests);
    for (size_t i = 0; i < before.size(); ++i) {
      ASSERT_TRUE(before[i].done && after[i].done);
      EXPECT_EQ(after[i].token_ids, before[i].token_ids);
      EXPECT_EQ(after[i].logprobs, before[i].logprobs);
    }
  };
  const fs::path weights = model / "model.safetensors";
  std::string content = read_file(weights.string());
  for (size_t i = content.size() / 100; i < content.size(); ++i) content[i] = static_cast<char>(content[i] ^ 0x55);
  write_file(weights.string(), content);
  expect_the_same();
  fs::resize_file(weights, 100);
  expect_the_same();
  fs::resize_file(weights, 0);
  expect_the_same();
  const auto status = server.status();
  EXPECT_EQ(status["epoch"], 1) << "no rank was ended";

  // A rank that dies now has left its weights to its successor.
  kill(status["ranks"][1]["pid"].get<int>(), SIGKILL);
  expect_the_same();
  const auto after = server.status();
  EXPECT_EQ(after["epoch"], 2);
  EXPECT_EQ(after["ranks"][1]["weight_bytes_read"], 0);
  EXPECT_EQ(after["ranks"][1]["weight_bytes"], status["ranks"][1]["weight_bytes"]);
}

TEST(Hostile, AdaptersThatAreNoneForThisBaseFailTheirOwnRequestsAlone) {
  const fs::path moby = source_path("examples/models/adapters/moby");
  const std::string file = "adapter_model.safetensors";
  const Safetensors good = Safetensors::of(moby / file);
  const std::string last = good.header.substr(0, good.header.rfind('}'));
  Safetensors bomb = good, twice = good, nothing = good, unaligned = good;
  bomb.header = R"({"a":)" + std::string(200'000, '[');
  twice.header = last + R"(,"__metadata__":{},"__metadata__":{}})";
  for (size_t at; (at = nothing.header.find("self_attn")) != std::string::npos;) nothing.header[at] = 'S';
  unaligned.data.insert(0, 1, 'x');
  const std::string bytes = good.bytes();
  std::string endless = bytes;
  std::memset(endless.data(), 0xFF, 8);

  struct Case {
    std::string name, content, sentence;
  };
  const Case cases[] = {
      {"truncated", bytes.substr(0, bytes.size() - 100), "adapter_model.safetensors"},
      {"bomb", bomb.bytes(), "deep"},
      {"twice", twice.bytes(), "twice"},
      {"nothing", nothing.bytes(), "Self_attn"},
      {"unaligned", unaligned.bytes(), "adapter_model.safetensors"},
      {"endless", endless, "adapter_model.safetensors"},
      {"empty", "", "adapter_model.safetensors"},
  };
  TempDir scratch;
  std::vector<std::string> flags = {"--tp", "2", "--lora-modules"};
  for (const Case& c : cases)
    flags.push_back(c.name + "=" + copy_with(moby, scratch / c.name, file, c.content).string());
  flags.push_back("other=" + source_path("tests/data/formats/qwen2.5-awq/adapters/all-r8").string());
  Served server(flags);
  ASSERT_TRUE(server.ready()) << server.process().err();

  std::vector<comm::GenerateRequest> requests;
  for (const Case& c : cases) requests.push_back(greedy_request("x", c.name, 4));
  requests.push_back(greedy_request("x", "other", 4));
  requests.push_back(greedy_request("The whale", "moby", 4));
  const std::vector<Answer> answers = server.ask(requests);
  for (size_t i = 0; i + 1 < answers.size(); ++i) {
    SCOPED_TRACE(*requests[i].adapter);
    EXPECT_EQ(answers[i].final_answers, 1);
    ASSERT_TRUE(answers[i].failure);
    EXPECT_EQ(answers[i].failure->code, "adapter_failed");
    if (i < std::size(cases)) {
      EXPECT_NE(answers[i].failure->message.find(cases[i].sentence), std::string::npos) << answers[i].failure->message;
    } else {
      EXPECT_FALSE(answers[i].failure->message.empty());
    }
  }
  EXPECT_TRUE(answers.back().done) << "of the good adapter, asked at the same time";
  expect_served(server, std::nullopt);
}

TEST(Hostile, RubbishOnTheSocketIsAnsweredOrEndsItsSenderAndDisturbsNobodyElse) {
  Served server({"--tp", "1"});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto streaming = server.connect();
  ASSERT_TRUE(streaming->send(greedy_request("The whale", "moby", 200)).has_value());

  comm::RawPeer peer(zmq::socket_type::dealer, server.address());
  comm::GenerateRequest request;
  request.id = "forged";
  request.prompt_token_ids = std::vector<int32_t>{1, 2, 3};
  const std::vector<uint8_t> encoded = comm::encode(request);
  std::string forged(encoded.begin(), encoded.end());
  const std::string id = "forged";
  const size_t length_at = forged.find(id) - 8;  // cereal's count of the characters that follow
  std::memset(forged.data() + length_at, 0x7F, 8);
  const std::vector<comm::RawPeer::Frames> rubbish = {
      {"rubbish"},
      {"lorikeet/1", "json", "generate"},
      {"lorikeet/9", "json", "generate", "{}"},
      {"lorikeet/1", "json", "generate", std::string(100'000, '[')},
      {"lorikeet/1", "json", "generate", R"({"id":"a","prompt":"x","prompt":"y"})"},
      {"lorikeet/1", "json", "generate", std::string(300, '\xFF')},
      {"lorikeet/1", "cereal", "generate", forged},
      {"lorikeet/1", "cereal", "cancel", std::string(64, '\xFF')},
  };
  for (const auto& frames : rubbish) {
    peer.send(frames);
    const auto answer = peer.receive_message();
    ASSERT_TRUE(answer) << frames.back().substr(0, 40);
    EXPECT_EQ((*answer)[2], "failure") << frames.back().substr(0, 40);
    EXPECT_NE((*answer)[3].find("malformed"), std::string::npos) << (*answer)[3];
  }
  comm::RawPeer flood(zmq::socket_type::dealer, server.address());
  flood.send({"lorikeet/1", "json", "generate", std::string(64u << 20, 'x')});

  EXPECT_TRUE(collect(*streaming, 1)[0].done.has_value());
  expect_served(server, "kjv");
}

TEST(Hostile, CheckpointsThatCannotBeServedEndTheStartWithTheirSentence) {
  const fs::path model = source_path("examples/models/tiny-qwen2-gptq-int4");
  const std::string config = read_file((model / "config.json").string());
  const std::string weights = read_file((model / "model.safetensors").string());
  Safetensors wrong = Safetensors::of(model / "model.safetensors");
  wrong.header = replaced(wrong.header, "model.norm.weight", "model.Norm.weight");
  struct Case {
    std::string name, file, content, sentence;
  };
  const Case cases[] = {
      {"architecture", "config.json", replaced(config, "Qwen2ForCausalLM", "GPT9ForCausalLM"), "GPT9ForCausalLM"},
      {"quantisation", "config.json", replaced(config, "\"gptq\"", "\"hqq9\""), "hqq9"},
      {"twice", "config.json", replaced(config, "{", "{\"hidden_size\": 1, \"hidden_size\": 2,"), "hidden_size"},
      {"bomb", "config.json", "{\"a\":" + std::string(200'000, '['), "config.json"},
      {"truncated", "model.safetensors", weights.substr(0, weights.size() / 2), "model.safetensors"},
      {"tensors", "model.safetensors", wrong.bytes(), "orm.weight"},
  };
  TempDir scratch;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const fs::path directory = copy_with(model, scratch / c.name, c.file, c.content);
    const Finished run = run_lorikeet({"serve", "--model", directory.string(), "--device", "cpu", "--no-http", "--zmq",
                                       "ipc://" + (scratch / (c.name + ".zmq")).string()});
    EXPECT_NE(run.status, 0);
    EXPECT_NE((run.err + run.out).find(c.sentence), std::string::npos) << run.err << run.out;
  }
}

}  // namespace
}  // namespace lorikeet::tests
