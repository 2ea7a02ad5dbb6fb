#include "model/checkpoint/safetensors_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/model/checkpoint/safetensors_writer.h"

namespace lorikeet::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SafetensorsImageTest : public testing::Test {
 protected:
  void write(std::vector<uint8_t> values) {
    tests::SafetensorsWriter writer;
    writer.add("a", "U8", {static_cast<int64_t>(values.size())}, values);
    writer.write(path_);
  }

  tests::TempDir dir_;
  const std::filesystem::path path_ = dir_ / "m.safetensors";
};

TEST_F(SafetensorsImageTest, GivesHeaderThenData) {
  write({1, 2, 3});
  const auto image = SafetensorsImage::open(path_);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ((*image)->header().tensors.at("a").end, 3u);
  EXPECT_EQ((*image)->data_size(), 3u);
  EXPECT_TRUE((*image)->data().empty());
  ASSERT_TRUE((*image)->read_data());
  EXPECT_THAT((*image)->data(), ElementsAre(1, 2, 3));
  EXPECT_EQ((*image)->header_bytes().size() + 3, std::filesystem::file_size(path_));
}

TEST_F(SafetensorsImageTest, ShowsEveryTensorOnceAndTellsTheFirstError) {
  tests::SafetensorsWriter writer;
  for (uint8_t i = 0; i < 20; ++i) {
    writer.add(std::string(1, static_cast<char>('a' + i)), "U8", {2}, std::vector<uint8_t>{i, i});
  }
  writer.write(path_);
  for (const int threads : {1, 4}) {
    const auto image = SafetensorsImage::open(path_);
    ASSERT_TRUE(image) << image.error().message;
    std::vector<std::vector<uint8_t>> seen(20);
    const auto all = [&](size_t i, const TensorEntry&, std::span<const uint8_t> bytes) -> Result<void> {
      seen.at(i).insert(seen.at(i).end(), bytes.begin(), bytes.end());
      return {};
    };
    ASSERT_TRUE((*image)->read_data(threads, all));
    for (uint8_t i = 0; i < 20; ++i) EXPECT_THAT(seen[i], ElementsAre(i, i));
    const auto again = SafetensorsImage::open(path_);
    const auto read = (*again)->read_data(threads, [](size_t i, const TensorEntry&, auto) -> Result<void> {
      return i < 7 ? Result<void>() : fail("tensor {}", i);
    });
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().message, "tensor 7");
  }
}

TEST_F(SafetensorsImageTest, GivesEveryTensorOnceWithoutKeepingAny) {
  tests::SafetensorsWriter writer;
  for (uint8_t i = 0; i < 20; ++i) {
    writer.add(std::string(1, static_cast<char>('a' + i)), "U8", {i + 1}, std::vector<uint8_t>(i + 1U, i));
  }
  writer.write(path_);
  for (const int threads : {1, 4}) {
    const auto image = SafetensorsImage::open(path_);
    ASSERT_TRUE(image) << image.error().message;
    std::vector<std::vector<uint8_t>> seen(20);
    ASSERT_TRUE((*image)->stream_data(threads, [&](size_t i, const TensorEntry&, auto bytes) -> Result<void> {
      seen.at(i).insert(seen.at(i).end(), bytes.begin(), bytes.end());
      return {};
    }));
    for (uint8_t i = 0; i < 20; ++i) EXPECT_EQ(seen[i], std::vector<uint8_t>(i + 1U, i));
    EXPECT_TRUE((*image)->data().empty());
    const auto read = (*image)->stream_data(threads, [](size_t i, const TensorEntry&, auto) -> Result<void> {
      return i < 7 ? Result<void>() : fail("tensor {}", i);
    });
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().message, "tensor 7");
  }
}

TEST_F(SafetensorsImageTest, KeepsTheFileThatItOpenedWhenAnotherTakesItsName) {
  write({1, 2, 3});
  const auto image = SafetensorsImage::open(path_);
  ASSERT_TRUE(image);
  std::filesystem::remove(path_);
  write({9, 9, 9});
  ASSERT_TRUE((*image)->read_data());
  EXPECT_THAT((*image)->data(), ElementsAre(1, 2, 3));
}

TEST_F(SafetensorsImageTest, SaysThatAFileWasCutShortMeanwhile) {
  write(std::vector<uint8_t>(100, 7));
  const auto image = SafetensorsImage::open(path_);
  ASSERT_TRUE(image);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  const auto read = (*image)->read_data();
  ASSERT_FALSE(read.has_value());
  EXPECT_THAT(read.error().message, HasSubstr("became shorter while it was read"));
}

TEST_F(SafetensorsImageTest, RefusesWhatIsNoSafetensorsFile) {
  EXPECT_THAT(SafetensorsImage::open(path_).error().message, HasSubstr("No such file"));
  EXPECT_THAT(SafetensorsImage::open(dir_.path()).error().message, HasSubstr("not a regular file"));
  tests::write_file(path_, "1234567");
  EXPECT_THAT(SafetensorsImage::open(path_).error().message, HasSubstr("7 bytes are too short"));
  tests::write_file(path_, std::string("\x40\0\0\0\0\0\0\0{}", 10));
  EXPECT_THAT(SafetensorsImage::open(path_).error().message,
              HasSubstr("truncated: a header of 64 bytes in a file of 10"));
  std::filesystem::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(SafetensorsImage::open(path_).error().message, HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace lorikeet::model
