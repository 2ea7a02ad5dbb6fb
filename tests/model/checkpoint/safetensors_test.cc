#include "model/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/checkpoint/safetensors_file.h"
#include "tests/model/checkpoint/safetensors_writer.h"

namespace lorikeet::model {
namespace {

using testing::HasSubstr;
using tests::safetensors_image;

Result<SafetensorsHeader> parse(const std::string& image) {
  return parse_safetensors({reinterpret_cast<const uint8_t*>(image.data()), image.size()}, "x");
}

std::string error_of(const std::string& header, const std::string& data = "") {
  const auto parsed = parse(safetensors_image(header, data));
  return parsed ? "" : parsed.error().message;
}

// A header of one tensor t with `data` bytes of data behind it.
std::string error_of_entry(const std::string& entry, const std::string& data) {
  return error_of("{\"t\":" + entry + "}", data);
}

TEST(Safetensors, GiveTheTensorsAndMetadataOfAFile) {
  tests::TempDir dir;
  tests::SafetensorsWriter writer;
  writer.add("b", "F16", {2, 3}, std::vector<uint16_t>{1, 2, 3, 4, 5, 6});
  writer.add("a", "I32", {2}, std::vector<int32_t>{7, -8});
  writer.write(dir / "m.safetensors");
  const auto file = SafetensorsFile::open(dir / "m.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ((*file)->header().metadata.at("format"), "pt");
  auto a = (*file)->find("a");
  ASSERT_TRUE(a);
  EXPECT_TRUE(a->bytes.empty());
  ASSERT_TRUE(read_bytes(*a));
  EXPECT_EQ(a->entry->dtype, kernels::Dtype::i32);
  EXPECT_EQ(a->entry->shape, std::vector<int64_t>{2});
  ASSERT_EQ(a->bytes.size(), 8u);
  EXPECT_EQ(a->bytes[0], 7);
  EXPECT_EQ(a->bytes[4], 0xf8);
  auto b = (*file)->find("b");
  ASSERT_TRUE(b);
  ASSERT_TRUE(read_bytes(*b));
  EXPECT_EQ(b->entry->elements(), 6);
  EXPECT_EQ(b->bytes[10], 6);
  EXPECT_FALSE((*file)->find("c"));
}

TEST(Safetensors, KeepTheirBytesAliveThroughTheOwner) {
  tests::TempDir dir;
  tests::SafetensorsWriter writer;
  writer.add("a", "U8", {1}, std::vector<uint8_t>{42});
  writer.write(dir / "m.safetensors");
  std::optional<TensorView> view;
  {
    const auto file = SafetensorsFile::open(dir / "m.safetensors");
    ASSERT_TRUE(file);
    view = (*file)->find("a");
    ASSERT_TRUE(read_bytes(*view));
  }
  EXPECT_EQ(view->bytes[0], 42);
  EXPECT_EQ(view->entry->dtype_name, "U8");
}

TEST(Safetensors, AllowEmptyTensorsRankZeroAndUnusedTypesAtAnyAlignment) {
  const auto header = parse(safetensors_image(
      R"({"s":{"dtype":"F32","shape":[],"data_offsets":[1,5]},"e":{"dtype":"F16","shape":[0,7],"data_offsets":[1,1]},)"
      R"("i":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"u":{"dtype":"U64","shape":[1],"data_offsets":[5,13]},)"
      R"("n":{"dtype":"F4","shape":[2],"data_offsets":[13,14]}}  )",
      std::string(14, 'x')));
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->tensors.at("s").elements(), 1);
  EXPECT_EQ(header->tensors.at("e").elements(), 0);
  EXPECT_FALSE(header->tensors.at("i").dtype.has_value());
  EXPECT_FALSE(header->tensors.at("u").dtype.has_value());
}

TEST(Safetensors, AreNamedWhereGitLeftPointersInTheirPlace) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, 'a') + "\nsize 9970000000\n";
  EXPECT_THAT(parse(pointer).error().message, HasSubstr("Git LFS's pointer to the file"));
  EXPECT_THAT(parse("version ").error().message, HasSubstr("Git LFS's pointer to the file")) << "as far as it was read";
  EXPECT_THAT(parse("version 2 of a file of mine").error().message, HasSubstr("not a safetensors file"));
}

TEST(Safetensors, AreRefusedWhenTruncatedOrNotThatFormat) {
  EXPECT_THAT(parse("").error().message, HasSubstr("0 bytes are too short"));
  EXPECT_THAT(parse("1234567").error().message, HasSubstr("7 bytes are too short"));
  EXPECT_THAT(parse("PK\3\4aaaaaaaaaaaaaaaa").error().message, HasSubstr("not a safetensors file"));
  std::string image = safetensors_image("{}", "");
  image[0] = 100;
  EXPECT_THAT(parse(image).error().message, HasSubstr("truncated: a header of 100 bytes in a file of 10"));
  EXPECT_THAT(error_of("[]"), HasSubstr("no JSON header"));
  EXPECT_THAT(error_of(""), HasSubstr("no JSON header"));
  EXPECT_THAT(error_of("{\"a\":"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{} trailing"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{\"\xff\":1}"), HasSubstr("not valid JSON"));
}

TEST(Safetensors, AreRefusedWithGapsOverlapsAndLeftOverBytes) {
  const auto two = [](int b0, int e0, int b1, int e1) {
    return fmt::format(
        R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
        e0 - b0, b0, e0, e1 - b1, b1, e1);
  };
  EXPECT_EQ(error_of(two(0, 2, 2, 4), "1234"), "");
  EXPECT_EQ(error_of(two(2, 4, 0, 2), "1234"), "");
  EXPECT_THAT(error_of(two(0, 2, 1, 3), "123"),
              HasSubstr("begins at byte 1, the one before it ends at 2: they overlap"));
  EXPECT_THAT(error_of(two(0, 2, 0, 2), "12"), HasSubstr("they overlap"));
  EXPECT_THAT(error_of(two(0, 2, 3, 4), "1234"),
              HasSubstr("begins at byte 3, the one before it ends at 2: there is a gap"));
  EXPECT_THAT(error_of(two(1, 2, 2, 4), "1234"), HasSubstr("there is a gap"));
  EXPECT_THAT(error_of(two(0, 2, 2, 4), "12345"), HasSubstr("the tensors end at byte 4 of 5 bytes of data"));
  EXPECT_THAT(error_of(two(0, 2, 2, 4), "123"), HasSubstr("the tensors end at byte 4 of 3 bytes of data"));
  EXPECT_THAT(error_of("{}", "1"), HasSubstr("the tensors end at byte 0 of 1"));
}

TEST(Safetensors, AreRefusedWithSizesThatDoNotFitTheirShape) {
  EXPECT_THAT(error_of_entry(R"({"dtype":"F16","shape":[3],"data_offsets":[0,4]})", "1234"),
              HasSubstr("4 bytes of data, shape [3] of F16 needs 6"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"F4","shape":[3],"data_offsets":[0,2]})", "12"),
              HasSubstr("not a whole number of bytes"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})", ""),
              HasSubstr("overflows"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,0]})", ""),
              HasSubstr("overflows"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":[0],"data_offsets":[2,1]})", "12"),
              HasSubstr("ends (1) before it begins (2)"));
}

TEST(Safetensors, AreRefusedWithNumbersThatAreNoSizes) {
  for (const char* number :
       {"-1", "1.0", "1e3", "9223372036854775808", "18446744073709551616", "\"1\"", "null", "true"}) {
    EXPECT_THAT(error_of_entry(fmt::format(R"({{"dtype":"U8","shape":[{}],"data_offsets":[0,1]}})", number), "1"),
                HasSubstr("is not a whole number"))
        << number;
    EXPECT_THAT(error_of_entry(fmt::format(R"({{"dtype":"U8","shape":[1],"data_offsets":[0,{}]}})", number), "1"),
                HasSubstr("are not whole numbers"))
        << number;
  }
}

TEST(Safetensors, AreRefusedWithEntriesOfTheWrongForm) {
  EXPECT_THAT(error_of_entry("3", ""), HasSubstr("is not an object"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":[0]})", ""),
              HasSubstr("must hold dtype, shape and data_offsets"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1})", ""),
              HasSubstr("nothing else"));
  EXPECT_THAT(error_of_entry(R"({"dtype":8,"shape":[0],"data_offsets":[0,0]})", ""),
              HasSubstr("dtype is not a string"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"Q4","shape":[0],"data_offsets":[0,0]})", ""),
              HasSubstr("unknown dtype \"Q4\""));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":0,"data_offsets":[0,0]})", ""),
              HasSubstr("shape is not an array"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":[0],"data_offsets":[0]})", ""), HasSubstr("not two numbers"));
  EXPECT_THAT(error_of_entry(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,0],"data_offsets":[0,0]})", ""),
              HasSubstr("9 dimensions, at most 8"));
  EXPECT_THAT(error_of(R"({"__metadata__":[]})"), HasSubstr("__metadata__ is not an object"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":1}})"), HasSubstr("not a string"));
}

TEST(Safetensors, AreRefusedWithNamesThatCouldBePathsOrHideOthers) {
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(error_of("{\"a/b\":" + entry + "}"), HasSubstr("holds a NUL or a slash"));
  EXPECT_THAT(error_of("{\"a\\u0000b\":" + entry + "}"), HasSubstr("holds a NUL or a slash"));
  EXPECT_THAT(error_of("{\"\":" + entry + "}"), HasSubstr("without a name"));
  EXPECT_THAT(error_of("{\"" + std::string(513, 'n') + "\":" + entry + "}"), HasSubstr("name of 513 bytes"));
  EXPECT_THAT(error_of("{\"a\":" + entry + ",\"a\":" + entry + "}"), HasSubstr("the key \"a\" occurs twice"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
              HasSubstr("occurs twice"));
}

TEST(Safetensors, AreRefusedWhenTheirHeaderIsABomb) {
  EXPECT_THAT(error_of("{\"a\":" + std::string(100'000, '[')), HasSubstr("nested deeper than 4 levels"));
  std::string many = "{\"a\":[";
  for (int i = 0; i < 3'000'000; ++i) many += "0,";
  EXPECT_THAT(error_of(many + "0]}"), HasSubstr("more than 2800000 values"));
  std::string image = safetensors_image("{}", "");
  image[7] = '\x7f';
  EXPECT_THAT(parse(image).error().message, HasSubstr("at most 100000000 are allowed"));
}

TEST(Safetensors, AreRefusedWhenTheyAreNoRegularFile) {
  tests::TempDir dir;
  EXPECT_THAT(SafetensorsFile::open(dir.path()).error().message, HasSubstr("not a regular file"));
  EXPECT_THAT(SafetensorsFile::open(dir / "none").error().message, HasSubstr("No such file"));
  tests::write_file(dir / "short", "123");
  EXPECT_THAT(SafetensorsFile::open(dir / "short").error().message, HasSubstr("too short"));
}

TEST(Safetensors, PublishedByScaleLlmHoldWhatTheirDescriptionSays) {
  const std::string path = LORIKEET_SOURCE_DIR "/../shared/fixtures/public/scalellm/test.safetensors";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "the published file is not here: " << path;
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_EQ((*file)->header().tensors.size(), 20u);
  for (int i = 0; i < 20; ++i) {
    auto tensor = (*file)->find("key_" + std::to_string(i));
    ASSERT_TRUE(tensor) << i;
    ASSERT_TRUE(read_bytes(*tensor));
    EXPECT_EQ(tensor->entry->shape, (std::vector<int64_t>{10, 10}));
    for (size_t k = 0; k < 100; ++k) EXPECT_EQ(kernels::load_float(tensor->bytes.data(), kernels::Dtype::f32, k), i);
  }
}

}  // namespace
}  // namespace lorikeet::model
