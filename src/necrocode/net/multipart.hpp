// multipart/form-data (RFC 7578): written by the artifact client, read by the artifact service.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/net/http_client.hpp"

namespace necrocode::net {

/// A form with small fields and one file at the end. The file's bytes come from `content`.
struct MultipartForm {
  std::vector<std::pair<std::string, std::string>> fields;
  std::string file_field = "file";
  std::string file_name;
  std::string file_type = "application/octet-stream";
  std::shared_ptr<BodySource> content;
};
struct EncodedMultipart {
  std::string content_type;          ///< with the boundary
  std::shared_ptr<BodySource> body;  ///< its size is known; rewinds
};
EncodedMultipart encode_multipart(MultipartForm form);

struct MultipartPart {
  std::string name;
  std::optional<std::string> file_name;  ///< as sent: data, never a path
  std::string content_type;
};

/// Reads a form from pieces cut anywhere, in flat memory. Not thread-safe.
class MultipartReader {
 public:
  /// Throws HttpError-free RunnerError (InvalidResponse) when `content_type` is not
  /// multipart/form-data with a boundary of 1–70 characters.
  explicit MultipartReader(std::string_view content_type);
  ~MultipartReader();
  std::function<void(const MultipartPart&)> on_part;  ///< a part begins
  std::function<void(std::string_view)> on_data;      ///< bytes of the current part
  std::function<void()> on_part_end;
  /// Throws InvalidResponse for malformed input or above limits::kMultipartParts / 16 KiB of part
  /// headers.
  void push(std::string_view piece);
  /// Throws InvalidResponse when the closing boundary has not come.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::net
