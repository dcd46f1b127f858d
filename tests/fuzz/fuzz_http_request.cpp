// A request's head, target and chunked body: however the bytes are cut, the same comes out, and
// what is accepted is within its limits.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/net/http1.hpp"

namespace {

using namespace necrocode;
using namespace necrocode::net;

void check_target(const std::string& text) {
  const auto parsed = parse_target(text);
  const auto* target = std::get_if<Target>(&parsed);
  if (target == nullptr) return;
  for (const std::string& segment : target->segments) {
    FUZZ_CHECK(segment != ".." && segment != ".");
    FUZZ_CHECK(segment.find('/') == std::string::npos && segment.find('\0') == std::string::npos);
  }
}

void check_body(const RequestHead& head, std::string_view bytes) {
  if (!head.chunked) return;
  ChunkDecoder decoder;
  std::string out;
  while (!bytes.empty() && !decoder.done()) {
    const auto used = decoder.decode(bytes, out, out.size() + 100);
    if (std::holds_alternative<Refusal>(used)) return;
    FUZZ_CHECK(std::get<std::size_t>(used) <= bytes.size());
    if (std::get<std::size_t>(used) == 0) return;
    bytes.remove_prefix(std::get<std::size_t>(used));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = test::as_text(data, size);
  HeadReader in_one;
  std::string whole(input.substr(input.empty() ? 0 : 1));
  const auto head = in_one.take(whole);

  HeadReader cut;
  std::string buffer;
  std::variant<std::monostate, RequestHead, Refusal> again;
  test::in_pieces(input, [&](std::string_view piece) {
    buffer.append(piece);
    again = cut.take(buffer);
    return std::holds_alternative<std::monostate>(again);
  });
  if (!input.empty()) FUZZ_CHECK(head.index() == again.index());
  if (const auto* parsed = std::get_if<RequestHead>(&head)) {
    FUZZ_CHECK(!(parsed->chunked && parsed->content_length));
    FUZZ_CHECK(parsed->headers.size() <= limits::kHttpHeaderCount);
    FUZZ_CHECK(std::get<RequestHead>(again).target == parsed->target);
    check_target(parsed->target);
    check_body(*parsed, whole);
  }
  return 0;
}
