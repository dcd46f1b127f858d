// The limits that callers or other folders may meet, each with its reason; those of one file
// stand at its head. Sizes are bytes unless the name says otherwise.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace necrocode::limits {

using namespace std::chrono_literals;

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;
inline constexpr std::size_t kGiB = 1024 * kMiB;

// JSON. Deeper than any message of ours (about 8) or of a model service (about 12); shallow enough
// that recursive code over a parsed value is safe.
inline constexpr std::size_t kJsonDepth = 64;
// Of what a caller hands over to be kept, so that it fits kJsonDepth again as part of a page.
inline constexpr std::size_t kFreeJsonDepth = kJsonDepth - 8;
// In one text; 100 for each of kTasksPerSubmit. A value takes 40 bytes, a member 72, and twice that
// while its container grows: at most 150 MB, however small the text.
inline constexpr std::size_t kJsonValues = 1'000'000;

// HTTP, both sides (SPEC section 3).
inline constexpr std::size_t kHttpHeaderBytes = 64 * kKiB;
inline constexpr std::size_t kHttpHeaderCount = 128;
inline constexpr std::size_t kHttpTargetBytes = 8 * kKiB;
inline constexpr std::size_t kHttpRequestBodyBytes = 8 * kMiB;    // JSON calls
inline constexpr std::size_t kHttpResponseBodyBytes = 64 * kMiB;  // kept in memory by a client
inline constexpr std::size_t kModelAnswerBytes = 16 * kMiB;       // SPEC section 5
inline constexpr std::size_t kHttpStreamChunkBytes = 64 * kKiB;   // one read of a streamed body
// Waiting between socket and handler.
inline constexpr std::size_t kHttpStreamBufferBytes = 256 * kKiB;
inline constexpr std::size_t kHttpConnections = 4096;
// Descriptors that are not connections: databases, files on their way, git's pipes.
inline constexpr std::size_t kDescriptorReserve = 256;
inline constexpr std::size_t kHttpHandlerThreads = 8;
inline constexpr std::size_t kHttpHandlerQueue = 512;
inline constexpr std::size_t kHttpBriefBodyBytes = 16 * kKiB;  // read on the server's own thread
// Handlers that wait for a client's bytes have threads of their own: slow uploads stop no claim.
inline constexpr std::size_t kHttpStreamThreads = 32;
inline constexpr std::size_t kHttpStreamQueue = 64;  // each with a buffer: 16 MiB
inline constexpr auto kHttpHeaderTime = 10s;
inline constexpr auto kHttpBodyGrace = 10s;  // then at least:
inline constexpr std::size_t kHttpBodyBytesPerSecond = 1 * kKiB;
inline constexpr auto kHttpKeepAliveIdle = 60s;
inline constexpr auto kHttpWriteStall = 60s;  // the client takes no byte of an answer
inline constexpr std::size_t kHttpFeedThreads = 2;
inline constexpr auto kHttpFeedSilence = 15s;  // below a proxy's and our clients' idle timeouts
inline constexpr auto kHttpLinger = 2s;        // reading on after a refusal, so that it arrives
// A body read away to keep the connection.
inline constexpr std::size_t kHttpDiscardBytes = 64 * kKiB;
inline constexpr std::size_t kHttpBodiesInMemory = 256 * kMiB;  // of all requests together
inline constexpr std::size_t kHttpSendfileBytes = 512 * kKiB;   // then the next connection's turn
inline constexpr std::size_t kHttpRedirects = 5;
inline constexpr std::size_t kHttpConnectionsPerHost = 64;  // client pool
inline constexpr std::size_t kHttpIdleConnections = 64;     // client pool, all hosts
inline constexpr auto kHttpConnectionAge = 50s;             // idle; below kHttpKeepAliveIdle
inline constexpr std::size_t kHttpHosts = 64;               // idle ones a client remembers

// Retries of all calls to one host together (net/host_guard.hpp). Ten calls may fail with all their
// three retries at once; in an outage there is then one retry a second, and one for five calls.
inline constexpr double kRetryBudgetTokens = 30;
inline constexpr double kRetryBudgetPerCall = 0.2;
inline constexpr double kRetryBudgetPerSecond = 1;
// More than one call's attempts, and longer than a service takes to start again.
inline constexpr std::size_t kBreakerFailures = 10;
inline constexpr auto kBreakerSpan = 5s;
inline constexpr auto kBreakerOpenMin = 2s;
inline constexpr auto kBreakerOpenMax = 30s;
inline constexpr auto kBreakerProbeWait = 500ms;  // for the others, while one probes
inline constexpr std::size_t kHostGuards = 1024;

// Calls kept until their service is back: a day of a busy worker.
inline constexpr std::size_t kOutboxCalls = 100'000;
inline constexpr std::size_t kOutboxBytes = 256 * kMiB;
inline constexpr std::size_t kMetricSeries = 1000;              // of one name
inline constexpr std::size_t kOutboxSetAsideBytes = 64 * kMiB;  // then one older file is kept
inline constexpr std::size_t kMultipartParts = 16;
inline constexpr std::size_t kMultipartHeaderBytes = 16 * kKiB;  // of one part
inline constexpr std::size_t kMultipartFieldBytes = 1 * kMiB;    // a part that is not the file

// Service data.
inline constexpr std::uint64_t kDiskFreeMin = 16 * kMiB;  // with less a service is not healthy
inline constexpr std::size_t kPageSizeDefault = 100;
inline constexpr std::size_t kPageSizeMax = 1000;
inline constexpr std::size_t kPageBytes = 8 * kMiB;  // of stored text; then the page ends
inline constexpr std::size_t kTasksPerSubmit = 10'000;
inline constexpr std::size_t kDependenciesPerSubmit = 100'000;
inline constexpr std::size_t kEventBytes = 1 * kMiB;
inline constexpr std::size_t kEventFeeds = 1000;                // open at once
inline constexpr std::size_t kEventFeedBytes = 256 * kKiB;      // then the socket has to take them
inline constexpr std::size_t kEventStreamBytes = 16 * kMiB;     // one event of a stream, read
inline constexpr std::size_t kEventStreamNameBytes = 1 * kKiB;  // of its id, or its name
inline constexpr std::size_t kWatchedEventBytes = 4 * kMiB;     // received, not yet handled
inline constexpr std::size_t kTaskTextBytes = 256 * kKiB;  // title, description, criteria together
inline constexpr std::size_t kMetadataBytes = 256 * kKiB;
inline constexpr std::size_t kMetadataMembers = 1000;  // of one task's
// References of one task. A URI's byte may take six in JSON, and 6 * 8 MiB with the rest of a task
// (8 MiB submitted, kMetadataBytes) stay below kHttpResponseBodyBytes.
inline constexpr std::size_t kTaskArtifacts = 10'000;
inline constexpr std::size_t kTaskArtifactBytes = 8 * kMiB;
inline constexpr std::size_t kClaimMax = 100;
inline constexpr int kAttemptsMax = 100;          // `max_attempts` of a task
inline constexpr std::size_t kAttemptsTold = 10;  // of a claimed task, the last ones
inline constexpr std::size_t kTouches = 1000;     // globs of a task
inline constexpr auto kParkTimeMax = 24h * 31;    // a provider, or a task's not_before
inline constexpr std::size_t kHeartbeatsPerCall = 1000;
inline constexpr auto kClaimWaitMax = 60s;
inline constexpr auto kSlotWaitMax = 600s;
inline constexpr std::size_t kSlotWaiters = 1000;
// Each may be held for a minute by a remote that says nothing, and a pool holds one at a time.
inline constexpr std::size_t kPoolNetworkWorkers = 16;
inline constexpr std::size_t kNameBytes = 100;  // a part of a task id, a pool, a type
inline constexpr std::size_t kArtifactNameBytes = 1024;
inline constexpr std::uint64_t kArtifactBytes = 64ULL * kGiB;
inline constexpr std::size_t kArtifactTags = 64;  // each at most kNameBytes
inline constexpr auto kIdempotencyKeyTime = 24h;  // SPEC section 3
inline constexpr std::size_t kIdempotencyKeyBytes = 255;
inline constexpr std::size_t kArtifactFormBytes = 4 * kMiB;  // of a form, beside its file

// Children.
inline constexpr std::size_t kOutputHeadBytes = 64 * kKiB;     // kept of each stream:
inline constexpr std::size_t kOutputTailBytes = 192 * kKiB;    // its head and its tail
inline constexpr std::size_t kGitOutputBytes = 256 * kMiB;     // a diff, read whole
inline constexpr auto kTerminateGrace = 5s;                    // SIGTERM, then SIGKILL
inline constexpr auto kDrainAfterExit = 1s;                    // a grandchild may hold the pipe
inline constexpr std::size_t kChildStatusBytes = 64 * kKiB;    // kept of descriptor 3
inline constexpr std::size_t kChildRequestBytes = 64 * kMiB;   // argv and environment, encoded
inline constexpr auto kSupervisorStart = 10s;                  // until the helper says hello
inline constexpr std::uint64_t kSandboxTmpBytes = 1 * kGiB;    // its /tmp; memory of the host
inline constexpr std::uint64_t kSandboxShmBytes = 256 * kMiB;  // its /dev/shm
inline constexpr std::uint64_t kSandboxRunBytes = 16 * kMiB;   // its /run
inline constexpr std::uint16_t kSandboxGatePort = 14700;       // where its loopback leads outside
inline constexpr std::size_t kSandboxMounts = 1000;            // in the workspace, 0.1 ms each

// Masking (SPEC section 10).
inline constexpr std::size_t kSecretBytesMin = 8;          // shorter would hide ordinary text
inline constexpr std::size_t kTokenShapeBytes = 8 * kKiB;  // looked at after "Bearer " …
inline constexpr std::size_t kPemBytes = 16 * kKiB;        // RSA-8192 in PEM is 6.4 KiB

// Runs.
inline constexpr std::size_t kCodeChanges = 1000;  // files in one answer
inline constexpr std::size_t kCodeChangeFileBytes = 8 * kMiB;
inline constexpr std::size_t kPathBytes = 4096;
inline constexpr std::size_t kRunLogBytes = 64 * kMiB;
inline constexpr std::size_t kPromptContextBytes = 64 * kKiB;  // related files in the prompt
inline constexpr std::size_t kFailureOutputBytes = 8 * kKiB;   // test output shown to the model

// Model service.
inline constexpr std::size_t kModelMessageBytes = 500;     // of its words in an error
inline constexpr std::size_t kModelHeadBytes = 16 * kKiB;  // looked at for them
// Read while looking for JSON in prose.
inline constexpr std::size_t kModelScanBytes = 4 * kModelAnswerBytes;
inline constexpr std::size_t kCodeEdits = 1000;        // search/replace pairs of one file
inline constexpr std::size_t kCodeChangeDefects = 20;  // told of one answer
// The metering proxy. An exchange holds a thread, a request, and of its answer what is on its way.
inline constexpr std::size_t kProxyExchanges = 128;
inline constexpr std::size_t kProxyRequestBytes = 64 * kMiB;
inline constexpr std::uint64_t kRecordedExchangesBytes = 256 * kMiB;  // of one run, on disk
inline constexpr std::size_t kCassetteBytes = 64 * kMiB;
inline constexpr std::size_t kCassetteEntries = 100'000;
inline constexpr std::size_t kReplayRecords = 10'000;  // the newest are kept

}  // namespace necrocode::limits
