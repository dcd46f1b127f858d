// A secret anywhere in any text is masked, also when the text comes in pieces; both ways give the
// same.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/masking.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace necrocode;
  static const Secret secret("s3cret/Key+42");
  static const Masker masker({&secret});
  const std::string_view input = test::as_text(data, size);
  if (input.empty()) return 0;
  std::string text(input.substr(1));
  text.insert(text.size() / 2, secret.reveal());
  const std::string whole = masker.mask(text);
  FUZZ_CHECK(whole.find(secret.reveal()) == std::string::npos);
  MaskingStream stream(masker);
  std::string cut;
  test::in_pieces(std::string(1, input[0]) + text, [&](std::string_view piece) {
    cut += stream.push(piece);
    return true;
  });
  cut += stream.finish();
  FUZZ_CHECK(cut == whole);
  return 0;
}
