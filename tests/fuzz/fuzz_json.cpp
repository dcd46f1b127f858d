// JSON of any bytes: what is accepted is within the depth, and reads back from its own text as the
// same value.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace necrocode;
  const auto value = Json::try_parse(test::as_text(data, size));
  if (!value) return 0;
  FUZZ_CHECK(value->depth() <= limits::kJsonDepth);
  const auto again = Json::try_parse(value->dump());
  FUZZ_CHECK(again && again->dump() == value->dump());
  return 0;
}
