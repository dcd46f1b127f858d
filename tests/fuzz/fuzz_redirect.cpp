// The redirect policy: whatever a Location says, nothing leaves its origin, and no credential comes
// in by it.
#include "fuzz/fuzz.hpp"
#include "necrocode/net/curl_transfer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace necrocode::net;
  const std::string location(necrocode::test::as_text(data, size));
  for (const char* base : {"https://store.example/a/b?c=d", "http://[::1]:8080/", "http://h:1"}) {
    HttpRequest request;
    request.url = base;
    const auto from = Url::parse(base);
    for (const int status : {301, 302, 303, 307, 308, 300, 304, 200}) {
      HttpResponse response;
      response.status = status;
      response.headers.add("Location", location);
      const auto target = redirect_target(request, *from, response);
      if (!target) continue;
      FUZZ_CHECK(status > 300 && status != 304 && status < 309);
      FUZZ_CHECK(target->origin() == from->origin());
      FUZZ_CHECK(target->user_info.empty());
      // What is sent is read as it was checked.
      const auto again = Url::parse(target->origin() + target->path);
      FUZZ_CHECK(again && again->origin() == from->origin() && again->path == target->path);
      request.method = "POST";
      FUZZ_CHECK(!redirect_target(request, *from, response));
      request.method = "GET";
    }
  }
  return 0;
}
