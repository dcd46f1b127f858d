// What a client makes of an answer: hints, redirects' targets and URLs of any bytes.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/net/retry.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace necrocode;
  const std::string text(test::as_text(data, size));
  const SystemTime now{std::chrono::seconds(1'769'860'800)};
  for (const char* name : {"Retry-After", "Retry-After-Ms"}) {
    const auto hint = net::read_retry_hint({{name, text}}, now);
    if (hint.delay) FUZZ_CHECK(hint.delay->count() >= 0 && *hint.delay <= std::chrono::hours(24));
  }
  const auto reset =
      net::read_retry_hint({{"x-ratelimit-remaining", "0"}, {"x-ratelimit-reset", text}}, now);
  if (reset.delay) FUZZ_CHECK(reset.delay->count() >= 0 && *reset.delay <= std::chrono::hours(24));
  if (const auto url = net::Url::parse(text)) {
    FUZZ_CHECK(url->scheme == "http" || url->scheme == "https");
    FUZZ_CHECK(url->port > 0 && url->port <= 65535);
    FUZZ_CHECK(!url->host.empty() && !url->path.empty());
    const auto again = net::Url::parse(url->origin() + url->path);
    FUZZ_CHECK(again && again->origin() == url->origin());
  }
  return 0;
}
