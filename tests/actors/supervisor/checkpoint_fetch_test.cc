#include "actors/supervisor/checkpoint_fetch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <iterator>

#include "actors/supervisor/checkpoint_server.h"
#include "comm/codec/codec.h"
#include "model/checkpoint/weights.h"
#include "model/config/config.h"
#include "tests/actors/supervisor/checkpoint_head.h"
#include "tests/comm/cluster/cluster_hosts.h"
#include "tests/model/checkpoint/same_weights.h"
#include "tests/temp_dir.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using tests::TempDir;

TEST_F(CheckpointFetch, BringsWhatARankNeedsAndNoMore) {
  CheckpointFetcher fetcher(cache(), 0);
  const Got folder = fetch(fetcher);
  ASSERT_TRUE(folder) << folder.error().why;
  tests::expect_same(load(*folder, 1), load(head_.model(), 1));
  EXPECT_EQ(done_, total_);
  EXPECT_GT(total_, 0U);
  EXPECT_EQ(fs::file_size(tensors(*folder)), fs::file_size(tensors(head_.model())));
  EXPECT_LT(bytes_on_disk(tensors(*folder)), bytes_on_disk(tensors(head_.model())));
  for (const char* name : {"config.json", "tokenizer.json", "vocab.json", "merges.txt"}) {
    EXPECT_TRUE(fs::exists(*folder / name)) << name;
  }
  const uint64_t first = fetcher.bytes_received();
  ASSERT_TRUE(fetch(fetcher, 0));
  EXPECT_LT(fetcher.bytes_received(), 2 * first) << "what ranks have in common is there";
  tests::expect_same(load(*folder, 0), load(head_.model(), 0));
}

TEST_F(CheckpointFetch, GoesOnWhereItWasTorn) {
  {
    CheckpointFetcher fetcher(cache(), 0);
    const Got torn = fetch(fetcher, 1, [&](uint64_t done, uint64_t total) {
      if (done > total / 2) head_.server().end(kFetchingHost);
    });
    ASSERT_FALSE(torn);
    EXPECT_FALSE(torn.error().for_good);
    EXPECT_THAT(torn.error().why, HasSubstr("the head: "));
    const uint64_t before = fetcher.bytes_received();
    EXPECT_GT(before, total_ / 2);
  }
  CheckpointFetcher after(cache(), 0);  // of the next process
  const Got folder = fetch(after);
  ASSERT_TRUE(folder) << folder.error().why;
  EXPECT_LT(after.bytes_received(), total_ / 2);
  tests::expect_same(load(*folder, 1), load(head_.model(), 1));
}

TEST_F(CheckpointFetch, RepairsWhatADiskHasChanged) {
  const Got folder = [&] {
    CheckpointFetcher fetcher(cache(), 0);
    return fetch(fetcher);
  }();
  ASSERT_TRUE(folder);
  overwrite(tensors(*folder), fs::file_size(tensors(*folder)) - 40, "no weight");
  CheckpointFetcher again(cache(), 0);
  ASSERT_TRUE(fetch(again));
  EXPECT_GT(again.bytes_received(), 0U);
  EXPECT_LT(again.bytes_received(), total_ / 2) << "a piece";
  tests::expect_same(load(*folder, 1), load(head_.model(), 1));
}

TEST_F(CheckpointFetch, LooksAgainOnceTheHeadsFilesAreOthers) {
  CheckpointFetcher fetcher(cache(), 0);
  ASSERT_TRUE(fetch(fetcher));
  const uint64_t first = fetcher.bytes_received();
  done_ = total_ = 0;
  ASSERT_TRUE(fetch(fetcher));
  EXPECT_EQ(total_, 0U) << "nothing was even looked at";
  const fs::path file = tensors(head_.model());
  overwrite(file, fs::file_size(file) - 2, std::string("\0\x3c", 2));  // 1 as a float of 16 bits
  fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(5));
  const Got folder = fetch(fetcher);
  ASSERT_TRUE(folder);
  EXPECT_GT(fetcher.bytes_received(), first);
  tests::expect_same(load(*folder, 1), load(head_.model(), 1));
}

TEST_F(CheckpointFetch, NeedsNoTensorsForRandomWeights) {
  options_.load_format = "dummy";
  CheckpointFetcher fetcher(cache(), 1 << 20);
  const Got folder = fetch(fetcher);
  ASSERT_TRUE(folder) << folder.error().why;
  EXPECT_LT(fetcher.bytes_received(), 1U << 20);
  EXPECT_TRUE(model::read_model_config(*folder));
}

TEST_F(CheckpointFetch, KeepsToItsSpace) {
  const Got refused = [&] {
    CheckpointFetcher narrow(cache(), 1 << 20);
    return fetch(narrow);
  }();
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().for_good);
  EXPECT_THAT(refused.error().why, HasSubstr("1048576 may be downloaded"));

  const auto old = [&](const char* name) {
    const fs::path folder = cache() / name;
    tests::write_file(folder / ".lock", "");
    tests::write_file(folder / "model.safetensors", std::string(6 << 20, 'x'));
    fs::last_write_time(folder / ".lock", fs::file_time_type::clock::now() - std::chrono::hours(1));
    return folder;
  };
  const fs::path unused = old("unused");
  {
    CheckpointFetcher fetcher(cache(), 12 << 20);
    ASSERT_TRUE(fetch(fetcher));
  }
  EXPECT_FALSE(fs::exists(unused));

  const fs::path used = old("used");
  const int lock = open((used / ".lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_SH), 0);
  CheckpointFetcher beside(cache(), 12 << 20);
  const Got later = fetch(beside);
  ASSERT_FALSE(later);
  EXPECT_FALSE(later.error().for_good) << "the other may end";
  EXPECT_THAT(later.error().why, HasSubstr("in use by others"));
  close(lock);
  EXPECT_TRUE(fetch(beside));
}

TEST_F(CheckpointFetch, KeepsNoPartsOfEarlierDaysThatLeaveNoRoom) {
  {
    CheckpointFetcher before(cache(), 0);
    ASSERT_TRUE(fetch(before, 0));
    ASSERT_TRUE(fetch(before, 1));
  }
  constexpr uint64_t kSpace = 10 << 20;  // more than a part, less than both
  CheckpointFetcher fetcher(cache(), kSpace);
  const Got folder = fetch(fetcher, 0);
  ASSERT_TRUE(folder) << folder.error().why;
  EXPECT_EQ(fetcher.times_emptied(), 1U);
  EXPECT_LE(bytes_on_disk(tensors(*folder)), kSpace);
  tests::expect_same(load(*folder, 0), load(head_.model(), 0));
}

TEST_F(CheckpointFetch, GivesEachWorkerOfADirectoryAFolderOfItsOwn) {
  fs::path first;
  {
    CheckpointFetcher fetcher(cache(), 0), beside(cache(), 0);
    const Got one = fetch(fetcher), other = fetch(beside);
    ASSERT_TRUE(one) << one.error().why;
    ASSERT_TRUE(other) << other.error().why;
    EXPECT_NE(one->string(), other->string());
    tests::expect_same(load(*one, 1), load(head_.model(), 1));
    tests::expect_same(load(*other, 1), load(head_.model(), 1));
    first = *one;
    EXPECT_EQ(fetch(fetcher).value_or("").string(), first.string()) << "it stays with it";
  }
  CheckpointFetcher later(cache(), 0);
  EXPECT_EQ(fetch(later).value_or("").string(), first.string()) << "nobody has it now";
  EXPECT_EQ(later.bytes_received(), 0U);
}

TEST_F(CheckpointFetch, MakesAFolderAnewThatWasRemoved) {
  CheckpointFetcher fetcher(cache(), 0);
  const Got before = fetch(fetcher);
  ASSERT_TRUE(before);
  fs::remove_all(*before);
  const Got folder = fetch(fetcher);
  ASSERT_TRUE(folder) << folder.error().why;
  tests::expect_same(load(*folder, 1), load(head_.model(), 1));
  CheckpointFetcher beside(cache(), 0);
  const Got other = fetch(beside);
  ASSERT_TRUE(other) << other.error().why;
  EXPECT_NE(other->string(), folder->string()) << "the new one is locked, too";
}

TEST_F(CheckpointFetch, DoesNotTryForeverWhatTheHeadsFilesDoNotGive) {
  const auto refused = [&](const std::string& why) {
    CheckpointFetcher fetcher(cache(), 0);
    const Got got = fetch(fetcher);
    ASSERT_FALSE(got);
    EXPECT_TRUE(got.error().for_good);
    EXPECT_THAT(got.error().why, HasSubstr("the head's checkpoint cannot be loaded: "));
    EXPECT_THAT(got.error().why, HasSubstr(why));
  };
  const fs::path config = head_.model() / "config.json";
  fs::copy(config, head_.model() / "kept");
  tests::write_file(config, "{");
  refused("config.json");
  fs::remove(config);
  fs::rename(head_.model() / "kept", config);
  fs::resize_file(tensors(head_.model()), 100);
  refused("model.safetensors");
  fs::resize_file(tensors(head_.model()), 4);
  refused("model.safetensors");
  fs::remove(tensors(head_.model()));
  refused("safetensors");
}

TEST_F(CheckpointFetch, IsNotHeldUpByFilesBesideTheCheckpoint) {
  tests::write_file(head_.model() / "empty.safetensors", "");
  tests::write_file(head_.model() / "torn.safetensors", std::string(100, 'x'));
  CheckpointFetcher fetcher(cache(), 0);
  const Got folder = fetch(fetcher);
  ASSERT_TRUE(folder) << folder.error().why;
  tests::expect_same(load(*folder, 1), load(head_.model(), 1));
}

TEST_F(CheckpointFetch, EndsWhenItIsToldTo) {
  CheckpointFetcher fetcher(cache(), 0);
  FetchStop stop;
  const auto got =
      fetcher.fetch([this] { return head_.dial(); }, options_, 1, stop, [&](uint64_t, uint64_t) { stop.stop(); });
  EXPECT_FALSE(got);
  EXPECT_TRUE(stop.is_stopped());
}

// What a stranger with a certificate could ask.
class CheckpointServing : public CheckpointFetch {
 protected:
  template <class Answer>
  Answer ask(const CheckpointRequest& request) {
    if (!stream_) {
      stream_ = std::make_unique<comm::TlsStream>(head_.dial().value(), std::chrono::milliseconds(tests::kPatienceMs));
    }
    EXPECT_TRUE(stream_->send(comm::encode(request)));
    const auto bytes = stream_->receive(kMaxCheckpointAnswer);
    EXPECT_TRUE(bytes) << bytes.error().message;
    const auto answer = comm::decode<CheckpointAnswer>(*bytes);
    return std::get<Answer>(answer.value());
  }

  std::unique_ptr<comm::TlsStream> stream_;
};

TEST_F(CheckpointServing, ShowsTheFilesOfAModelAlone) {
  for (const char* name :
       {".env", "id_rsa", "train.py", "more/config.json", "credentials.json", "notes.txt", "._config.json"}) {
    tests::write_file(head_.model() / name, "a secret");
  }
  fs::create_symlink("/etc/passwd", head_.model() / "passwd");
  std::vector<std::string> names;
  for (const auto& file : ask<checkpoint::Files>(checkpoint::ListFiles{}).files) names.push_back(file.name);
  EXPECT_THAT(names, ::testing::ElementsAre("config.json", "generation_config.json", "merges.txt", "model.safetensors",
                                            "tokenizer.json", "tokenizer_config.json", "vocab.json"));
}

TEST_F(CheckpointServing, RefusesPiecesThatAreNotThere) {
  EXPECT_NE(ask<checkpoint::Piece>(checkpoint::ReadPiece{0, {0, 1, 0, 1}, ""}).error, "") << "before the list";
  const auto files = ask<checkpoint::Files>(checkpoint::ListFiles{}).files;
  const uint64_t size = files[3].bytes, huge = ~0ULL;
  const std::vector<model::ByteRuns> wrong = {{0, 0, 0, 1},
                                              {0, 1, 0, 0},
                                              {size, 1, 0, 1},
                                              {size - 1, 2, 0, 1},
                                              {0, kMaxCheckpointPiece + 1, 0, 1},
                                              {0, 1, 1, kMaxCheckpointPiece + 1},
                                              {huge, 1, 0, 1},
                                              {0, huge, 0, 1},
                                              {0, 1, huge, 2},
                                              {0, 1, 1, huge},
                                              {0, 4, size - 3, 2},
                                              {huge - 1, 2, huge, 2}};
  for (const model::ByteRuns& runs : wrong) {
    const auto piece = ask<checkpoint::Piece>(checkpoint::ReadPiece{3, runs, ""});
    EXPECT_EQ(piece.error, "model.safetensors has no such piece") << runs.begin << " " << runs.bytes;
    EXPECT_TRUE(piece.bytes.empty());
  }
  EXPECT_EQ(ask<checkpoint::Piece>(checkpoint::ReadPiece{7, {0, 1, 0, 1}, ""}).error, "there is no file 7");
  const auto right = ask<checkpoint::Piece>(checkpoint::ReadPiece{3, {0, 4, size - 4, 2}, ""});
  EXPECT_EQ(right.error, "");
  EXPECT_EQ(right.bytes.size(), 8U);
  EXPECT_TRUE(ask<checkpoint::Piece>(checkpoint::ReadPiece{3, {0, 4, size - 4, 2}, right.digest}).same);
}

TEST_F(CheckpointServing, GivesAHostFourConnections) {
  std::vector<std::unique_ptr<comm::TlsStream>> streams;
  for (size_t i = 0; i < kCheckpointStreams; ++i) {
    ask<checkpoint::Files>(checkpoint::ListFiles{});
    streams.push_back(std::move(stream_));
  }
  comm::TlsStream more(head_.dial().value(), std::chrono::milliseconds(tests::kPatienceMs));
  (void)more.send(comm::encode(CheckpointRequest(checkpoint::ListFiles{})));
  EXPECT_FALSE(more.receive(kMaxCheckpointAnswer));
}

TEST_F(CheckpointServing, EndsOneThatSaysRubbish) {
  comm::TlsStream stream(head_.dial().value(), std::chrono::milliseconds(tests::kPatienceMs));
  ASSERT_TRUE(stream.send(std::vector<uint8_t>{1, 2, 3}));
  EXPECT_FALSE(stream.receive(kMaxCheckpointAnswer));
}

}  // namespace
}  // namespace lorikeet::actors
