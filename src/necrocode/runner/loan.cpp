#include "necrocode/runner/loan.hpp"

#include <string_view>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/run_folder.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNoteBytes = 256 * limits::kMiB;  // every untracked path of the user's

fs::path folder_of(const GivenClone& clone) {
  return clone.git_dir() / "necrocode";
}

fs::path note_of(const GivenClone& clone) {
  return folder_of(clone) / "loan";
}

// A header in JSON, then the user's paths as they are, each after a NUL: names need not be UTF-8.
std::string to_note(const Loan& loan) {
  std::string note =
      Json::object({{"head", loan.head},
                    {"head_commit", loan.head_commit},
                    {"branch", loan.branch},
                    {"branch_tip", loan.branch_tip},
                    {"commit", loan.commit},
                    {"root_permissions", static_cast<std::int64_t>(loan.root_permissions)}})
          .dump();
  for (const std::string& path : loan.users_files) note.append(1, '\0').append(path);
  return note;
}

// Nothing when it is missing or not one of ours: a clone may hold anything.
std::optional<Loan> read_loan(const GivenClone& clone) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(note_of(clone), error))) return std::nullopt;
  const std::string note = read_file(note_of(clone), kNoteBytes);
  const std::vector<std::string_view> parts = split(note, '\0');
  const auto header = Json::try_parse(parts.front());
  if (!header) return std::nullopt;
  Loan loan;
  loan.head = (*header)["head"].string_or("");
  loan.head_commit = (*header)["head_commit"].string_or("");
  loan.branch = (*header)["branch"].string_or("");
  loan.branch_tip = (*header)["branch_tip"].string_or("");
  loan.commit = (*header)["commit"].string_or("");
  loan.root_permissions =
      static_cast<fs::perms>((*header)["root_permissions"].as_int().value_or(0755) & 07777);
  loan.users_files.insert(parts.begin() + 1, parts.end());
  const bool ours = git::is_object_id(loan.head_commit) && git::is_branch_name(loan.branch) &&
                    (loan.commit.empty() || git::is_object_id(loan.commit));
  return ours ? std::optional(std::move(loan)) : std::nullopt;
}

// Whether the clone stands where the killed run may have left it. Elsewhere its user has taken it
// up since.
bool stands_as_left(const GivenClone& clone, const Loan& loan) {
  const std::string tip = clone.branch_commit(loan.branch).value_or("");
  const bool moved_branch = !loan.commit.empty() && tip == loan.commit;
  if (tip != loan.branch_tip && !moved_branch) return false;
  if (clone.head() == loan.head) {
    return clone.head_commit() == loan.head_commit || clone.head_commit() == loan.commit;
  }
  return moved_branch && clone.head() == "ref: refs/heads/" + loan.branch;
}

// A link there would lead what is written, and what is believed, out of the clone.
void require_own_folder(const GivenClone& clone) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(folder_of(clone), error);
  if (!fs::exists(status) || fs::is_directory(status)) return;
  throw WorkspacePreparationError(
      "slot_path's git directory has a \"necrocode\" that is no folder");
}

// A rename tells where the work tree's files can be moved to: a linked work tree, or a mounted one,
// may be on another file system than its git directory.
bool is_reached_by_rename(const fs::path& folder, const fs::path& root) {
  const fs::path probe = root / (".necrocode-probe-" + random_hex(8));
  std::error_code error;
  if (!fs::create_directory(probe, error)) return false;
  fs::rename(probe, folder / probe.filename(), error);
  std::error_code ignored;
  fs::remove(error ? probe : folder / probe.filename(), ignored);
  return !error;
}

// In the git directory, as nearly always, else beside the work tree.
fs::path make_aside(const GivenClone& clone) {
  const fs::path root = fs::canonical(clone.root());
  const std::string name = "killed-run-" + random_hex(4);
  for (const fs::path& aside :
       {folder_of(clone) / name, root.parent_path() / (root.filename().string() + "-" + name)}) {
    std::error_code error;
    if (!fs::create_directory(aside, error)) continue;
    if (is_reached_by_rename(aside, root)) return aside;
    fs::remove(aside, error);
  }
  throw WorkspacePreparationError(
      "a run was killed in slot_path, and what it left can be moved neither into its git directory "
      "nor beside it, which are other file systems; look through it (git status), then remove " +
      note_of(clone).string());
}

// The clone's own index names the same files with the same content as `commit`.
bool has_index_of(const git::Repository& repository, const GivenClone& clone,
                  const std::string& commit, const CallContext& context) {
  std::error_code error;
  if (!fs::is_regular_file(clone.git_dir() / "index", error)) return true;
  write_file_atomic(repository.git_dir() / "index",
                    read_file(clone.git_dir() / "index", limits::kGiB));
  return repository.changes(commit, "", context).empty();
}

}  // namespace

void write_loan(const GivenClone& clone, const Loan& loan) {
  require_own_folder(clone);
  fs::create_directory(folder_of(clone));
  write_file_durable(note_of(clone), to_note(loan), 0600);
}

void remove_loan(const GivenClone& clone) {
  std::error_code error;
  fs::remove(note_of(clone), error);
  fs::remove(folder_of(clone), error);  // stays when a killed run's files lie in it
}

std::optional<fs::path> put_right_after_kill(const git::Repository& repository, GivenClone& clone,
                                             const std::string& identity,
                                             const CallContext& context) {
  require_own_folder(clone);
  const auto loan = read_loan(clone);
  if (!loan) return std::nullopt;
  if (!stands_as_left(clone, *loan)) {
    remove_loan(clone);
    return std::nullopt;
  }
  const fs::path aside = make_aside(clone);
  const std::string target = loan->commit.empty() ? loan->head_commit : loan->commit;
  const bool index_is_right =
      loan->commit.empty() && has_index_of(repository, clone, target, context);
  if (!index_is_right) {
    std::error_code error;
    fs::copy_file(clone.git_dir() / "index", aside / ".git-index", error);
  }
  fs::permissions(clone.root(), fs::perms::owner_all, fs::perm_options::add);
  repository.run({"update-ref", "--no-deref", "HEAD", target}, context);
  repository.run({"read-tree", target}, context);
  repository.refresh_index(context);
  try {
    repository.restore_from_index(context, loan->users_files, aside);
  } catch (...) {
    std::error_code error;
    fs::remove(aside, error);  // unless something lies in it
    throw;
  }
  if (!loan->commit.empty()) {
    clone.stand_on(loan->branch, loan->commit, repository.git_dir() / "index", identity);
  } else if (!index_is_right) {
    write_file_atomic(clone.git_dir() / "index",
                      read_file(repository.git_dir() / "index", limits::kGiB));
  }
  fs::permissions(clone.root(), loan->root_permissions);
  for (const fs::path& folder : {clone.git_dir(), folder_of(clone)}) {
    remove_drafts(folder, std::chrono::seconds(0));
  }
  clone.look_again();
  const bool nothing_moved = fs::is_empty(aside);
  if (nothing_moved) fs::remove(aside);
  remove_loan(clone);
  if (nothing_moved) return std::nullopt;
  return aside;
}

}  // namespace necrocode::runner
