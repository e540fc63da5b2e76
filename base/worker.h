/* worker: a thread for what waits for a disk, so that no event loop does. Jobs run one after the other in the order of submission; the `done` of each runs on the loop, in that order too. */
#ifndef BASE_WORKER_H
#define BASE_WORKER_H

#include <event2/event.h>

#include "base/status.h"

struct worker;

/* STATUS_LOCAL_SYSTEM where there is no thread to be had. */
enum status worker_new(struct event_base *base, struct worker **ret_worker) MUST_USE;
/* Runs what is queued, joins the thread; `done`s that have not run yet run from here, and may submit nothing more. */
void worker_free(struct worker *worker);
/* `job` on the worker's thread, then `done` on the loop; `arg` is the job's alone between the two. STATUS_AGENT_OVERLOADED where 16 wait already or the worker is being freed,
 * STATUS_AGENT_INTERNAL when memory is out: then neither runs. */
enum status worker_submit(struct worker *worker, void (*job)(void *arg), void (*done)(void *arg), void *arg) MUST_USE;

#endif
