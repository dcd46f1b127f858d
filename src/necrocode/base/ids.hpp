// Ids are types, so that a slot can never be passed where a task is meant.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

namespace necrocode {

/// A task's full id `{spec}:{number}`, each part [A-Za-z0-9][A-Za-z0-9._-]{0,99} (SPEC section 3).
/// Always well-formed, never changed; ordered by its text. Views of it live as long as it does.
class TaskId {
 public:
  /// Nothing when `text` is not a full id.
  static std::optional<TaskId> parse(std::string_view text);
  /// Nothing when a part is not well-formed.
  static std::optional<TaskId> make(std::string_view spec, std::string_view number);

  const std::string& str() const noexcept { return text_; }
  std::string_view spec() const noexcept { return std::string_view(text_).substr(0, colon_); }
  std::string_view number() const noexcept { return std::string_view(text_).substr(colon_ + 1); }
  friend bool operator==(const TaskId& a, const TaskId& b) { return a.text_ == b.text_; }
  friend auto operator<=>(const TaskId& a, const TaskId& b) { return a.text_ <=> b.text_; }

 private:
  TaskId(std::string text, std::size_t colon) : text_(std::move(text)), colon_(colon) {}
  std::string text_;
  std::size_t colon_;
};

/// [A-Za-z0-9][A-Za-z0-9._-]{0,99}: a part of a task id, a pool name, an artifact type.
bool is_plain_name(std::string_view text);

/// An id or token without further structure; Tag makes each kind its own type.
template <class Tag>
struct Id {
  std::string value;
  friend auto operator<=>(const Id&, const Id&) = default;
};
using SlotId = Id<struct SlotTag>;          ///< names one lease of one slot, `app-3.17`
using ArtifactId = Id<struct ArtifactTag>;  ///< never reused
using RunnerId = Id<struct RunnerTag>;
using LeaseToken = Id<struct LeaseTag>;  ///< proves the lease; unguessable

/// `bytes` random bytes from the kernel, as lower-case hex.
std::string random_hex(std::size_t bytes);
/// A UUID of version 7 (RFC 9562 section 5.7): sortable by time, 74 random bits.
std::string uuid7();

}  // namespace necrocode
