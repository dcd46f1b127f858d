// A model's answer of any bytes: refused with one of two errors, or changes whose paths stay
// inside.
#include "fuzz/fuzz.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/model.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace necrocode;
  std::string explanation;
  try {
    auto changes = llm::parse_code_changes(test::as_text(data, size), explanation);
    FUZZ_CHECK(!changes.empty() && changes.size() <= limits::kCodeChanges);
    for (auto& change : changes) {
      const std::string& path = change.file_path;
      FUZZ_CHECK(!path.empty() && path.front() != '/' && path.size() <= limits::kPathBytes);
      FUZZ_CHECK(("/" + path + "/").find("/../") == std::string::npos);
      const bool modify = change.operation == llm::Operation::kModify;
      const int parts =
          (change.content ? 1 : 0) + (change.edits.empty() ? 0 : 1) + (change.diff.empty() ? 0 : 1);
      FUZZ_CHECK(change.operation == llm::Operation::kDelete ? parts <= 1 : parts == 1);
      FUZZ_CHECK(modify || (change.edits.empty() && change.diff.empty()));
      for (const auto* text : {&change.content.emplace(change.content.value_or("")), &change.diff})
        FUZZ_CHECK(is_utf8(*text) && text->find('\0') == std::string::npos);
      FUZZ_CHECK(path.find('\0') == std::string::npos && path.find('\n') == std::string::npos);
    }
  } catch (const ImplementationError&) {
    return 0;
  } catch (const SecurityError&) {
    return 0;
  }
  return 0;
}
