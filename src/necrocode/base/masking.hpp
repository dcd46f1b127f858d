// Masker: takes known secrets, and well-known token shapes, out of text before it leaves the
// process. Known: raw, base64 (three alignments, also URL-safe), URL-encoded (as the usual encoders
// do it), JSON-escaped, XML-escaped and hex forms (SPEC section 10), also with colour escapes (ANSI
// CSI) between their characters. Shapes: GitHub, GitLab, Slack, npm, AWS, Google and model
// services' keys, JSON web tokens, the values of Bearer and Basic authorization, private keys in
// PEM.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/secret.hpp"

namespace necrocode {

/// The secrets to look for. Immutable and thread-safe once made.
class Masker {
 public:
  /// Of escape sequences inside one secret; what has more is not taken for a secret.
  static constexpr std::size_t kEscapeBytesMax = 1024;

  Masker();  ///< only the well-known shapes
  /// Throws SecurityError for a secret shorter than 8 bytes or over more than one line: masking it
  /// would either hide ordinary text or miss.
  explicit Masker(const std::vector<const Secret*>& secrets);
  Masker(Masker&&) noexcept;
  Masker& operator=(Masker&&) noexcept;
  ~Masker();

  /// `text` with each secret as "***"; what overlaps or touches becomes one. So of two secrets of
  /// which one contains the other, the longest is hidden. Equal to one MaskingStream over any
  /// split.
  std::string mask(std::string_view text) const;
  /// The same of the first `bytes_max` bytes, without what at their end may be a secret cut in two:
  /// for a short piece of a long foreign text, in bounded time. Cut the result, never the text.
  std::string mask_head(std::string_view text, std::size_t bytes_max) const;
  bool contains_secret(std::string_view text) const { return mask(text) != text; }

 private:
  friend class MaskingStream;
  friend struct MaskScanner;
  struct Patterns;
  std::shared_ptr<const Patterns> patterns_;
};

/// Masks a text that arrives in pieces: holds back what may be the beginning of a secret. Not
/// thread-safe. Between two pushes it holds less than limits::kPemBytes of text (a key block), or,
/// if that is more, less than the longest form of a secret and Masker::kEscapeBytesMax; each byte
/// is looked at a bounded number of times, however the text is made or cut.
class MaskingStream {
 public:
  explicit MaskingStream(const Masker& masker);
  MaskingStream(MaskingStream&&) noexcept;
  MaskingStream& operator=(MaskingStream&&) noexcept;
  ~MaskingStream();

  /// What of the text so far can be let go.
  std::string push(std::string_view piece);
  /// The rest; the stream starts anew.
  std::string finish();
  std::size_t held_bytes() const { return held_.size(); }  ///< taken, not yet decided

 private:
  struct Span {  ///< of held_
    std::size_t begin;
    std::size_t end;
  };
  struct Ahead;
  friend class Masker;
  friend struct MaskScanner;
  std::string advance(std::string_view text, bool final, std::size_t& done);

  std::shared_ptr<const Masker::Patterns> patterns_;
  std::string held_;
  std::unique_ptr<Ahead> ahead_;  ///< what is known of held_, so that no scan is done twice
  std::vector<Span> spans_;       ///< found, not yet passed
  char before_ = '\n';            ///< the character before held_
  bool after_mask_ = false;       ///< the last thing let go was "***"
};

}  // namespace necrocode
