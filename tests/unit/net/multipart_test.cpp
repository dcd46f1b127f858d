// multipart/form-data, both directions.
#include "necrocode/net/multipart.hpp"

#include <gmock/gmock.h>

#include <cstring>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"

namespace necrocode::net {
namespace {

struct ReadPart {
  MultipartPart part;
  std::string data;
  bool ended = false;
};

std::vector<ReadPart> read_form(std::string_view type, std::string_view body, std::size_t piece) {
  MultipartReader reader(type);
  std::vector<ReadPart> parts;
  reader.on_part = [&](const MultipartPart& part) { parts.push_back({part, "", false}); };
  reader.on_data = [&](std::string_view bytes) { parts.back().data += bytes; };
  reader.on_part_end = [&] { parts.back().ended = true; };
  for (; !body.empty(); body.remove_prefix(std::min(piece, body.size()))) {
    reader.push(body.substr(0, piece));
  }
  reader.finish();
  return parts;
}

class StringSource final : public BodySource {
 public:
  explicit StringSource(std::string text) : text_(std::move(text)) {}
  std::size_t read(char* buffer, std::size_t size) override {
    const std::size_t count = std::min({size, text_.size() - used_, std::size_t{7}});
    std::memcpy(buffer, text_.data() + used_, count);
    used_ += count;
    return count;
  }
  std::uint64_t size() const override { return text_.size(); }
  void rewind() override { used_ = 0; }

 private:
  std::string text_;
  std::size_t used_ = 0;
};

std::string drain(BodySource& source) {
  std::string all;
  char buffer[11];
  while (const std::size_t count = source.read(buffer, sizeof buffer)) all.append(buffer, count);
  return all;
}

constexpr std::string_view kType = "multipart/form-data; boundary=xYz";
constexpr std::string_view kForm =
    "preamble\r\n--xYz\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nlog\r\n"
    "--xYz  \r\ncontent-type: text/x\r\nCONTENT-DISPOSITION: form-data; name=\"file\"; "
    "filename=\"a\\\"b.txt\"\r\n\r\nline\r\n--xY not\r\r\n-\r\n"
    "\r\n--xYz\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--xYz--\r\nepilogue --xYz";

TEST(MultipartReader, AnySplitThenTheSameParts) {
  for (std::size_t piece = 1; piece <= kForm.size(); ++piece) {
    const auto parts = read_form(kType, kForm, piece);
    ASSERT_EQ(parts.size(), 3u) << piece;
    EXPECT_EQ(parts[0].part.name, "type");
    EXPECT_EQ(parts[0].part.file_name, std::nullopt);
    EXPECT_EQ(parts[0].data, "log");
    EXPECT_EQ(parts[1].part.name, "file");
    EXPECT_EQ(parts[1].part.file_name, "a\"b.txt");
    EXPECT_EQ(parts[1].part.content_type, "text/x");
    EXPECT_EQ(parts[1].data, "line\r\n--xY not\r\r\n-\r\n");
    EXPECT_EQ(parts[2].part.name, "empty");
    EXPECT_EQ(parts[2].data, "");
    for (const auto& part : parts) EXPECT_TRUE(part.ended);
  }
}

TEST(MultipartReader, TwoPiecesCutAtEveryOffsetThenTheSameParts) {
  for (std::size_t cut = 0; cut <= kForm.size(); ++cut) {
    MultipartReader reader(kType);
    std::string data;
    reader.on_data = [&](std::string_view bytes) { data += bytes; };
    reader.push(kForm.substr(0, cut));
    reader.push(kForm.substr(cut));
    reader.finish();
    EXPECT_EQ(data, "logline\r\n--xY not\r\r\n-\r\n") << cut;
  }
}

TEST(MultipartReader, CutFormThenInvalidResponse) {
  const std::size_t whole = kForm.find("--xYz--") + 7;
  for (std::size_t size = 0; size < whole; ++size) {
    EXPECT_THROW(read_form(kType, kForm.substr(0, size), 16), InvalidResponse) << size;
  }
  EXPECT_NO_THROW(read_form(kType, kForm.substr(0, whole), 16));
}

TEST(MultipartReader, LargePartThenHandedOnWithoutKeepingIt) {
  const std::string block(64 * limits::kKiB, '\r');
  MultipartReader reader(kType);
  std::size_t most_held = 0;
  std::size_t pushed = 0;
  std::size_t got = 0;
  reader.on_data = [&](std::string_view bytes) { got += bytes.size(); };
  reader.push("--xYz\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n");
  for (int i = 0; i < 64; ++i) {
    reader.push(block);
    pushed += block.size();
    most_held = std::max(most_held, pushed - got);
  }
  reader.push("\r\n--xYz--");
  reader.finish();
  EXPECT_EQ(got, pushed);
  EXPECT_LT(most_held, 80u);
}

TEST(MultipartReader, TooManyPartsThenInvalidResponse) {
  const auto form = [](std::size_t parts) {
    std::string text;
    for (std::size_t i = 0; i < parts; ++i) {
      text += "--xYz\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nv\r\n";
    }
    return text + "--xYz--\r\n";
  };
  EXPECT_EQ(read_form(kType, form(limits::kMultipartParts), 100).size(), limits::kMultipartParts);
  EXPECT_THROW(read_form(kType, form(limits::kMultipartParts + 1), 100), InvalidResponse);
}

TEST(MultipartReader, HugePartHeaderThenInvalidResponse) {
  MultipartReader reader(kType);
  reader.push("--xYz\r\nX: ");
  const std::string block(1024, 'a');
  EXPECT_THROW(
      {
        for (int i = 0; i < 17; ++i) reader.push(block);
      },
      InvalidResponse);
}

TEST(MultipartReader, MalformedPartThenInvalidResponse) {
  const std::string_view heads[] = {
      "Content-Disposition: form-data\r\n",
      "Content-Disposition: attachment; name=\"a\"\r\n",
      "Content-Disposition: form-data; name=\"a\r\n",
      "Content-Disposition: form-data; name=\"a\"; name=\"b\"\r\n",
      "Content-Disposition: form-data; name\r\n",
      "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=a\r\n",
      "Content-Disposition form-data; name=a\r\n",
      "Content-Type: text/plain\r\n",
      "",
  };
  for (const std::string_view head : heads) {
    const std::string form = "--xYz\r\n" + std::string(head) + "\r\nv\r\n--xYz--";
    EXPECT_THROW(read_form(kType, form, 1000), InvalidResponse) << head;
  }
  EXPECT_THROW(read_form(kType, "--xYzz\r\n\r\n--xYz--", 5), InvalidResponse);
}

TEST(MultipartReader, TypeWithoutUsableBoundaryThenInvalidResponse) {
  const std::string types[] = {
      "",
      "text/plain; boundary=x",
      "multipart/mixed; boundary=x",
      "multipart/form-data",
      "multipart/form-data; boundary=",
      "multipart/form-data; boundary=\"\"",
      "multipart/form-data; boundary=\"a",
      "multipart/form-data; boundary=\"a \"",
      "multipart/form-data; boundary=a\nb",
      "multipart/form-data; boundary=" + std::string(71, 'x'),
      "multipart/form-data; boundary=a; boundary=b",
  };
  for (const std::string& type : types)
    EXPECT_THROW(MultipartReader{type}, InvalidResponse) << type;
  EXPECT_NO_THROW(MultipartReader{"Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""});
}

TEST(MultipartReader, FileNameOfAnotherFolderThenOnlyData) {
  const auto parts = read_form(
      kType,
      "--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../C:\\x%22\"\r\n"
      "\r\nv\r\n--xYz--",
      3);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].part.file_name, "../../C:\\x\"");
}

TEST(MultipartReader, ExtendedFileNameThenDecoded) {
  const auto parts = read_form(
      kType,
      "--xYz\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''%C3%A4.txt\r\n"
      "\r\nv\r\n--xYz--",
      3);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].part.file_name, "ä.txt");
}

TEST(MultipartEncoder, OddNamesThenReadBackAsTheyWere) {
  MultipartForm form;
  form.fields = {{"type", "log"}, {"a\"b\r\nc", "line\r\nline"}};
  form.file_name = "../x\"\r\ny.txt";
  form.file_type = "text/plain";
  form.content = std::make_shared<StringSource>(std::string("\r\n--data\0--", 11));
  const EncodedMultipart encoded = encode_multipart(std::move(form));
  const std::string bytes = drain(*encoded.body);
  EXPECT_EQ(bytes.size(), encoded.body->size());
  const auto parts = read_form(encoded.content_type, bytes, 13);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].data, "log");
  EXPECT_EQ(parts[1].part.name, "a\"b\r\nc");
  EXPECT_EQ(parts[1].data, "line\r\nline");
  EXPECT_EQ(parts[2].part.name, "file");
  EXPECT_EQ(parts[2].part.file_name, "../x\"\r\ny.txt");
  EXPECT_EQ(parts[2].part.content_type, "text/plain");
  EXPECT_EQ(parts[2].data, std::string("\r\n--data\0--", 11));
}

TEST(MultipartEncoder, RewoundThenTheSameBytes) {
  MultipartForm form;
  form.file_name = "x";
  form.content = std::make_shared<StringSource>("content");
  const EncodedMultipart encoded = encode_multipart(std::move(form));
  const std::string first = drain(*encoded.body);
  encoded.body->rewind();
  EXPECT_EQ(drain(*encoded.body), first);
}

TEST(MultipartEncoder, TypeThatWouldBreakTheHeaderThenReplaced) {
  MultipartForm form;
  form.file_type = "text/plain\r\nX: y";
  form.content = std::make_shared<StringSource>("");
  const EncodedMultipart encoded = encode_multipart(std::move(form));
  const auto parts = read_form(encoded.content_type, drain(*encoded.body), 1);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].part.content_type, "application/octet-stream");
}

}  // namespace
}  // namespace necrocode::net
