#include "necrocode/runner/transcript.hpp"

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kTranscriptBytes = 16 * limits::kMiB;

}  // namespace

void Transcript::asked(std::string_view prompt) {
  ++call_;
  add("prompt", clean(prompt));
}

void Transcript::answered(const std::string& model, std::string_view text, const Json& usage) {
  add("answer", Json::object({{"model", clean(model)}, {"text", clean(text)}, {"usage", usage}}));
}

void Transcript::failed(std::string_view reason) {
  add("error", clean(reason));
}

/// As it came: in JSON the colour escapes within a secret would be another text.
std::string Transcript::clean(std::string_view text) const {
  return to_valid_utf8(masker_.mask(text));
}

void Transcript::add(std::string_view member, const Json& value) {
  if (full_) return;
  Json line = Json::object({{"call", call_}});
  std::string text = line.set(std::string(member), value).dump() + "\n";
  full_ = lines_.size() + text.size() > kTranscriptBytes;
  if (full_) text = Json::object({{"call", call_}, {"left_out", true}}).dump() + "\n";
  lines_ += text;
}

}  // namespace necrocode::runner
