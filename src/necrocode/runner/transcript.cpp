#include "necrocode/runner/transcript.hpp"

#include <fcntl.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/observe/log.hpp"

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
  if (closed_) return;
  Json line = Json::object({{"call", call_}});
  std::string text = line.set(std::string(member), value).dump() + "\n";
  closed_ = written_ + text.size() > kTranscriptBytes;
  if (closed_) text = Json::object({{"call", call_}, {"left_out", true}}).dump() + "\n";
  write(text);
}

void Transcript::write(std::string_view text) {
  try {
    if (!file_) {
      file_.reset(::open(path_.c_str(),
                         O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
      if (!file_) throw_errno("cannot create the transcript", path_.string());
    }
    write_all(file_.get(), text);
    written_ += text.size();
  } catch (const StorageError& error) {
    closed_ = true;
    log::error("the run's transcript cannot be written; the rest of it is lost",
               {{"file", path_.string()}, {"error", error.what()}});
  }
}

}  // namespace necrocode::runner
