// multipart/form-data by RFC 7578, with the escapes of the WHATWG's form encoding. Neither side
// keeps more than a boundary's length of the file.
#include "necrocode/net/multipart.hpp"

#include <algorithm>

#include "necrocode/base/check.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::net {
namespace {

[[noreturn]] void malformed(const std::string& what) {
  throw InvalidResponse("multipart: " + what);
}

// In a quoted name or file name. Percent signs stay, as browsers send them.
std::string escape(std::string text) {
  text = replace_all(std::move(text), "\"", "%22");
  text = replace_all(std::move(text), "\r", "%0D");
  return replace_all(std::move(text), "\n", "%0A");
}
std::string unescape(std::string text) {
  text = replace_all(std::move(text), "%0D", "\r");
  text = replace_all(std::move(text), "%0A", "\n");
  return replace_all(std::move(text), "%22", "\"");
}

// What stands before the content, the content, and what stands behind it.
class MultipartBody final : public BodySource {
 public:
  MultipartBody(std::string head, std::shared_ptr<BodySource> content, std::string tail)
      : head_(std::move(head)), content_(std::move(content)), tail_(std::move(tail)) {}

  std::size_t read(char* buffer, std::size_t size) override {
    if (const std::size_t count = copy(head_, head_used_, buffer, size); count > 0) return count;
    const std::size_t count = content_->read(buffer, size);
    return count > 0 ? count : copy(tail_, tail_used_, buffer, size);
  }
  std::uint64_t size() const override { return head_.size() + content_->size() + tail_.size(); }
  void rewind() override {
    head_used_ = 0;
    tail_used_ = 0;
    content_->rewind();
  }

 private:
  static std::size_t copy(const std::string& from, std::size_t& used, char* to, std::size_t size) {
    const std::size_t count = std::min(size, from.size() - used);
    std::copy_n(from.data() + used, count, to);
    used += count;
    return count;
  }
  const std::string head_;
  const std::shared_ptr<BodySource> content_;
  const std::string tail_;
  std::size_t head_used_ = 0;
  std::size_t tail_used_ = 0;
};

bool is_boundary(std::string_view text) {
  if (text.empty() || text.size() > 70 || text.back() == ' ') return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return is_ascii_alnum(c) || std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos;
  });
}

// `value` is "type; name=value; name=\"quoted\"". Gives the parameters one by one; throws when a
// quoted string does not end. In form data a backslash escapes only a quote or itself: file names
// of old clients hold bare ones.
class Parameters {
 public:
  explicit Parameters(std::string_view value) : rest_(value) {
    type_ = ascii_lower(trim(rest_.substr(0, rest_.find(';'))));
    rest_.remove_prefix(std::min(rest_.find(';'), rest_.size()));
  }
  const std::string& type() const { return type_; }

  bool next(std::string& name, std::string& value) {
    while (!rest_.empty() &&
           (rest_.front() == ';' || rest_.front() == ' ' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
    if (rest_.empty()) return false;
    const std::size_t equals = rest_.find('=');
    if (equals == std::string_view::npos) malformed("a parameter without a value");
    name = ascii_lower(trim(rest_.substr(0, equals)));
    rest_.remove_prefix(equals + 1);
    value = rest_.starts_with('"') ? quoted() : token();
    return true;
  }

 private:
  std::string token() {
    const std::size_t end = std::min(rest_.find(';'), rest_.size());
    std::string value(trim(rest_.substr(0, end)));
    rest_.remove_prefix(end);
    return value;
  }
  std::string quoted() {
    std::string value;
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == '"') {
        rest_.remove_prefix(i + 1);
        return value;
      }
      const bool escapes =
          rest_[i] == '\\' && i + 1 < rest_.size() && (rest_[i + 1] == '"' || rest_[i + 1] == '\\');
      value += rest_[escapes ? ++i : i];
    }
    malformed("a quoted string does not end");
  }
  std::string_view rest_;
  std::string type_;
};

MultipartPart parse_part_headers(std::string_view text) {
  MultipartPart part;
  bool has_name = false;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find("\r\n"), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 2, text.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos ||
        !is_valid_header(line.substr(0, colon), line.substr(colon + 1))) {
      malformed("a malformed part header");
    }
    const std::string_view value = trim(line.substr(colon + 1));
    if (iequals(line.substr(0, colon), "Content-Type")) part.content_type = value;
    if (!iequals(line.substr(0, colon), "Content-Disposition")) continue;
    if (has_name) malformed("two Content-Disposition headers in one part");
    Parameters parameters(value);
    if (parameters.type() != "form-data") malformed("a part that is not form-data");
    std::string name;
    std::string content;
    while (parameters.next(name, content)) {
      if (name == "name") {
        if (has_name) malformed("a part with two names");
        part.name = unescape(content);
        has_name = true;
      } else if (name == "filename") {
        part.file_name = unescape(content);
      } else if (name == "filename*" && !part.file_name) {
        // RFC 7578 forbids it, some clients send it: charset'language'percent-encoded.
        part.file_name = percent_decode(content.substr(content.rfind('\'') + 1));
      }
    }
  }
  if (!has_name) malformed("a part without a name");
  return part;
}

}  // namespace

EncodedMultipart encode_multipart(MultipartForm form) {
  NECROCODE_CHECK(form.content != nullptr);
  // 128 random bits: the content cannot hold it by accident, nor by intent.
  const std::string boundary = "necrocode-" + random_hex(16);
  std::string head;
  const auto begin_part = [&](const std::string& name) {
    head += "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + escape(name) + "\"";
  };
  for (const auto& [name, value] : form.fields) {
    begin_part(name);
    head += "\r\n\r\n" + value + "\r\n";
  }
  begin_part(form.file_field);
  head += "; filename=\"" + escape(form.file_name) + "\"\r\nContent-Type: " +
          (is_valid_header("Content-Type", form.file_type) ? form.file_type
                                                           : "application/octet-stream") +
          "\r\n\r\n";
  return {"multipart/form-data; boundary=" + boundary,
          std::make_shared<MultipartBody>(std::move(head), std::move(form.content),
                                          "\r\n--" + boundary + "--\r\n")};
}

// The text is "[preamble CRLF]--boundary …". With a CRLF put before the whole, every boundary is
// CRLF--boundary, and there is one thing to look for.
struct MultipartReader::State {
  explicit State(MultipartReader& owner) : reader(owner) {}
  bool step();
  bool read_data();
  bool read_boundary_end();
  bool read_headers();

  MultipartReader& reader;  // for its callbacks
  enum class Where { kPreamble, kAfterBoundary, kHeaders, kData, kEpilogue };
  std::string delimiter;  // CRLF--boundary
  std::string buffer = "\r\n";
  Where where = Where::kPreamble;
  std::size_t parts = 0;
};

MultipartReader::MultipartReader(std::string_view content_type)
    : state_(std::make_unique<State>(*this)) {
  Parameters parameters(content_type);
  if (parameters.type() != "multipart/form-data") malformed("the type is not multipart/form-data");
  std::string name;
  std::string value;
  while (parameters.next(name, value)) {
    if (name != "boundary") continue;
    if (!state_->delimiter.empty()) malformed("two boundaries");
    if (!is_boundary(value)) malformed("the boundary is malformed");
    state_->delimiter = "\r\n--" + value;
  }
  if (state_->delimiter.empty()) malformed("no boundary");
}

MultipartReader::~MultipartReader() = default;

void MultipartReader::push(std::string_view piece) {
  if (state_->where == State::Where::kEpilogue) return;
  state_->buffer.append(piece);
  while (state_->step()) {
  }
}

void MultipartReader::finish() {
  if (state_->where != State::Where::kEpilogue) malformed("the closing boundary is missing");
}

// One move through the form. False when more bytes are needed.
bool MultipartReader::State::step() {
  switch (where) {
    case Where::kPreamble:
    case Where::kData:
      return read_data();
    case Where::kAfterBoundary:
      return read_boundary_end();
    case Where::kHeaders:
      return read_headers();
    case Where::kEpilogue:
      break;
  }
  buffer.clear();
  return false;
}

bool MultipartReader::State::read_data() {
  const bool in_part = where == Where::kData;
  const std::size_t found = buffer.find(delimiter);
  // Without a delimiter the last bytes may be the beginning of one.
  const std::size_t keep = delimiter.size() - 1;
  const std::size_t ready = found != std::string::npos ? found
                            : buffer.size() > keep     ? buffer.size() - keep
                                                       : 0;
  if (in_part && ready > 0 && reader.on_data)
    reader.on_data(std::string_view(buffer).substr(0, ready));
  if (found == std::string::npos) {
    buffer.erase(0, ready);
    return false;
  }
  buffer.erase(0, found + delimiter.size());
  if (in_part && reader.on_part_end) reader.on_part_end();
  where = Where::kAfterBoundary;
  return true;
}

// Behind a boundary: "--" ends the form; spaces and CRLF begin a part.
bool MultipartReader::State::read_boundary_end() {
  if (buffer.size() < 2) return false;
  if (buffer.starts_with("--")) {
    where = Where::kEpilogue;
    return true;
  }
  const std::size_t end = buffer.find_first_not_of(" \t");
  if (end == std::string::npos || buffer.size() < end + 2) {
    if (buffer.size() > limits::kMultipartHeaderBytes) malformed("a boundary's line too long");
    return false;
  }
  if (buffer.compare(end, 2, "\r\n") != 0) malformed("text behind a boundary");
  if (++parts > limits::kMultipartParts) malformed("too many parts");
  // The CRLF stays: a part without headers is CRLF CRLF here.
  buffer.erase(0, end);
  where = Where::kHeaders;
  return true;
}

bool MultipartReader::State::read_headers() {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (std::min(end, buffer.size()) > limits::kMultipartHeaderBytes) {
    malformed("a part's headers are too large");
  }
  if (end == std::string::npos) return false;
  const std::string_view lines = std::string_view(buffer).substr(0, end);
  const MultipartPart part =
      parse_part_headers(lines.substr(std::min<std::size_t>(2, lines.size())));
  // `part` keeps no view into the buffer.
  buffer.erase(0, end + 4);
  if (reader.on_part) reader.on_part(part);
  where = Where::kData;
  return true;
}

}  // namespace necrocode::net
