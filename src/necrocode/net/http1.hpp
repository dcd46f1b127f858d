// The grammar of HTTP/1.1 requests (RFC 9112), strict: what two parsers could read in two ways is
// refused, because that is how requests are smuggled. Bytes in, values or a Refusal out: no
// sockets, no threads, no routes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "necrocode/net/http.hpp"

namespace necrocode::net {

/// Why a request is answered by the server itself.
struct Refusal {
  int status = 400;
  std::string detail;
};

/// Finds the end of a request's head in a buffer that grows, and refuses bytes that no head may
/// hold: NUL and other controls, CR or LF alone, a folded line, too much of anything.
class HeadScanner {
 public:
  /// `buffer`: all bytes of the head so far, from its first. The head's size with its empty line,
  /// or nothing when more bytes are needed.
  std::variant<std::monostate, std::size_t, Refusal> scan(std::string_view buffer);

 private:
  std::optional<Refusal> take(char c, std::size_t position);
  std::size_t scanned_ = 0;
  std::size_t line_start_ = 0;
  std::size_t lines_ = 0;
  bool after_cr_ = false;
  bool complete_ = false;
};

struct RequestHead {
  std::string method;
  std::string target;
  Headers headers;
  bool http_1_0 = false;
  bool keep_alive = true;
  bool chunked = false;
  bool expects_continue = false;
  std::optional<std::uint64_t> content_length;
};

/// `head`: what HeadScanner measured.
std::variant<RequestHead, Refusal> parse_request_head(std::string_view head);

/// Takes a request's head out of a buffer that grows.
class HeadReader {
 public:
  /// Nothing when more bytes are needed; then `buffer` still holds the head so far. What follows
  /// the head stays in it.
  std::variant<std::monostate, RequestHead, Refusal> take(std::string& buffer);

 private:
  HeadScanner scanner_;
  bool skipped_empty_line_ = false;
};

/// A request target, taken apart and decoded.
struct Target {
  std::string path;                   ///< still percent-encoded
  std::vector<std::string> segments;  ///< decoded; none holds '/', '\', NUL or is a dot segment
  std::vector<std::pair<std::string, std::string>> query;
};
/// Origin form, or absolute form with http or https, whose authority is left out.
std::variant<Target, Refusal> parse_target(std::string_view target);

/// Takes chunked framing off (RFC 9112 section 7.1). Trailers are read and dropped.
class ChunkDecoder {
 public:
  /// Appends body bytes to `out` until it holds `out_max`, the input is used up or the body is
  /// whole. The number of bytes used, or a Refusal.
  std::variant<std::size_t, Refusal> decode(std::string_view input, std::string& out,
                                            std::size_t out_max);
  bool done() const { return state_ == State::kDone; }

 private:
  enum class State {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kTrailerLf,
    kDone
  };
  bool frame(char c);
  State state_ = State::kSize;
  std::uint64_t left_ = 0;         // of the chunk
  std::size_t digits_ = 0;         // of the size
  std::size_t framing_bytes_ = 0;  // of this chunk's line, or of all trailers
  bool trailer_line_empty_ = true;
};

}  // namespace necrocode::net
