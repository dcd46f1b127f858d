// Reads an upload request: the form of POST /artifacts, whose fields come in any order, and what
// metadata says about an artifact. Bytes go straight into the store's upload; nothing is published.
#pragma once

#include <string>

#include "necrocode/artifacts/artifact_store.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::artifacts {

struct ReceivedForm {
  ArtifactDraft draft;
  std::string body_sha256;  ///< of the whole form as it was sent; only when it was asked for
};

/// Reads the whole body of `request` (multipart/form-data with `file`, `type`, `metadata`). Throws
/// HttpError: 415 another media type, 400 malformed or cut, 413 too large, 422 with every defect.
ReceivedForm receive_form(const net::Request& request, ArtifactUpload& upload, bool hash_body);

/// The draft for an upload of `type` with `metadata` (task_id, spec_name, name and tags inside are
/// understood). Throws HttpError 422 with every defect.
ArtifactDraft make_draft(const std::string& type, Json metadata);

/// The member `tags` of `object`: at most limits::kArtifactTags of limits::kNameBytes each, not
/// empty, each once. Defects go to `fields`.
std::vector<std::string> read_tags(JsonFields& fields);

}  // namespace necrocode::artifacts
