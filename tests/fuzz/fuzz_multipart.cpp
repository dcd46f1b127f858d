// A form cut anywhere reads as the whole one does.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/net/multipart.hpp"

namespace {

using namespace necrocode;

struct Read {
  std::string text;
  bool whole = false;
};

template <class Push>
Read read(const Push& push) {
  Read read;
  net::MultipartReader reader("multipart/form-data; boundary=b");
  reader.on_part = [&](const net::MultipartPart& part) { read.text += "<" + part.name + ">"; };
  reader.on_data = [&](std::string_view bytes) { read.text += bytes; };
  reader.on_part_end = [&] { read.text += "</>"; };
  try {
    push(reader);
    reader.finish();
    read.whole = true;
  } catch (const InvalidResponse&) {
    read.whole = false;
  }
  return read;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = test::as_text(data, size);
  if (input.empty()) return 0;
  const Read whole = read([&](net::MultipartReader& reader) { reader.push(input.substr(1)); });
  const Read cut = read([&](net::MultipartReader& reader) {
    test::in_pieces(input, [&](std::string_view piece) {
      reader.push(piece);
      return true;
    });
  });
  FUZZ_CHECK(whole.whole == cut.whole);
  if (whole.whole) FUZZ_CHECK(whole.text == cut.text);
  return 0;
}
