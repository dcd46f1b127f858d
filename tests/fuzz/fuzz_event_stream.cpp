// Server-sent events: any bytes in any pieces make the same events as in one piece.
#include <vector>

#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/net/event_stream.hpp"

namespace {

constexpr std::size_t kBytesMax = 1024;

/// The events; without the last ones when one of them was too large.
std::vector<std::string> read(std::string_view input, bool whole) {
  using namespace necrocode;
  net::EventStreamReader reader(kBytesMax);
  std::vector<std::string> events;
  const auto keep = [&](const net::StreamEvent& event) {
    FUZZ_CHECK(event.data.size() <= kBytesMax);
    FUZZ_CHECK(event.id.find_first_of("\r\n") == std::string::npos);
    FUZZ_CHECK(event.name.find_first_of("\r\n") == std::string::npos);
    FUZZ_CHECK(event.data.find('\r') == std::string::npos);
    events.push_back(event.id + '\n' + event.name + '\n' + event.data);
  };
  const auto take = [&](std::string_view piece) {
    try {
      reader.take(piece, keep);
      return true;
    } catch (const InvalidResponse&) {
      return false;
    }
  };
  if (whole) {
    take(input.substr(std::min<std::size_t>(1, input.size())));
  } else {
    test::in_pieces(input, take);
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = necrocode::test::as_text(data, size);
  // A line may be too large in pieces that is not kept whole, and is none in one.
  const auto whole = read(input, true);
  const auto pieces = read(input, false);
  FUZZ_CHECK(pieces.size() <= whole.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) FUZZ_CHECK(pieces[i] == whole[i]);
  if (size <= kBytesMax) FUZZ_CHECK(pieces.size() == whole.size());
  return 0;
}
