// What tests of checkpoints on their way share: a head that has one, and a worker's cache.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "actors/supervisor/checkpoint_fetch.h"
#include "actors/supervisor/checkpoint_server.h"
#include "model/checkpoint/weights.h"
#include "model/config/config.h"
#include "tests/comm/cluster/cluster_hosts.h"
#include "tests/temp_dir.h"

namespace lorikeet::actors {

inline constexpr uint64_t kFetchingHost = 7;

// A head that reads a copy of the example model to whoever has the certificate and the token.
class CheckpointHead {
 public:
  CheckpointHead() : server_(std::make_unique<CheckpointServer>(model().string())) {
    std::filesystem::copy(std::filesystem::path(LORIKEET_SOURCE_DIR) / "examples/models/tiny-qwen2-gptq-int4", model());
    auto listener = comm::TlsListener::open("127.0.0.1", 0, keys_.head(), keys_.token());
    EXPECT_TRUE(listener) << listener.error().message;
    listener_ = *std::move(listener);
    listener_->start({[this](comm::TlsConnection connection, const std::vector<uint8_t>&) {
                        server_->serve(std::move(connection), kFetchingHost);
                      },
                      [](const std::string&) {}});
  }

  std::filesystem::path model() const { return dir_ / "model"; }
  CheckpointServer& server() { return *server_; }

  Result<comm::TlsConnection> dial() const {
    comm::DialOptions options;
    options.host = "127.0.0.1";
    options.port = listener_->port();
    options.token = keys_.token();
    return comm::dial(*keys_.worker(), options, {1});
  }

 private:
  const tests::ClusterKeys keys_;
  const tests::TempDir dir_;
  std::unique_ptr<CheckpointServer> server_;
  std::unique_ptr<comm::TlsListener> listener_;  // ends first
};

inline uint64_t bytes_on_disk(const std::filesystem::path& file) {
  struct stat info {};
  return stat(file.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

inline void overwrite(const std::filesystem::path& file, uint64_t at, const std::string& bytes) {
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekp(static_cast<std::streamoff>(at));
  stream << bytes;
}

class CheckpointFetch : public ::testing::Test {
 protected:
  CheckpointFetch() {
    options_.model = head_.model().string();
    options_.tensor_parallel_size = 2;
  }

  using Got = tl::expected<std::filesystem::path, CheckpointFetcher::Failure>;
  Got fetch(CheckpointFetcher& fetcher, int32_t rank = 1, const CheckpointFetcher::Progress& progress = {}) {
    FetchStop stop;
    const CheckpointFetcher::Progress note = [&](uint64_t done, uint64_t total) {
      EXPECT_LE(done_, done);
      done_ = done;
      total_ = total;
      if (progress) progress(done, total);
    };
    done_ = 0;
    return fetcher.fetch([this] { return head_.dial(); }, options_, rank, stop, note);
  }

  model::RankWeights load(const std::filesystem::path& folder, int rank) const {
    const auto plan = model::ShardPlan::make(model::read_model_config(folder).value(), options_.tensor_parallel_size);
    auto weights = model::load_rank_weights(folder, *plan, rank);
    EXPECT_TRUE(weights) << weights.error().message;
    return weights.value_or(model::RankWeights{});
  }

  std::filesystem::path cache() const { return cache_ / "of a worker"; }
  std::filesystem::path tensors(const std::filesystem::path& folder) const { return folder / "model.safetensors"; }

  CheckpointHead head_;
  tests::TempDir cache_;
  ServerOptions options_;
  uint64_t done_ = 0, total_ = 0;
};

}  // namespace lorikeet::actors
