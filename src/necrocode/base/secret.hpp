// Secret: a credential in memory. Wiped on destruction, never printed, never compared in variable
// time.
#pragma once

#include <string>
#include <string_view>

namespace necrocode {

/// Move-only. There is no operator<< and no conversion; reveal() names each place that uses it.
/// Reading from several threads at once is safe. Wiped is what this object holds: copies that a
/// receiver of reveal() makes are the receiver's.
class Secret {
 public:
  Secret() = default;
  /// Copies `text`; wiping the source is the caller's part.
  explicit Secret(std::string_view text);
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  bool empty() const noexcept { return text_.empty(); }
  /// The bytes, valid while this object lives. Only for the call that sends them.
  std::string_view reveal() const noexcept { return text_; }
  Secret copy() const { return Secret(text_); }
  /// Constant-time in the content; the lengths are not hidden.
  bool equals(std::string_view other) const noexcept;

 private:
  void wipe() noexcept;
  std::string text_;
};

/// Overwrites `text` in a way the compiler keeps, then empties it.
void wipe(std::string& text) noexcept;

}  // namespace necrocode
