/* sd_journal_sendv would add this file as the place of every line. */
#define SD_JOURNAL_SUPPRESS_LOCATION

#include "base/log.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log_line.h"

#define QUEUE_LIMIT 4096
#define STOP_LIMIT_S 1
#define GATHER_NS 5000000
#define BUDGET_LINES 60
#define BUDGET_LINE_US 2000000

/* One writer from log_start to log_stop. On the heap: one that hangs in its sink is left to itself. */
struct writer {
	pthread_mutex_t mutex;
	pthread_cond_t wanted;   /* for the thread: there are lines, a grave one, or the end */
	pthread_cond_t ended;    /* for log_stop */
	struct log_line *first, **last;
	unsigned queued;         /* including the one being written */
	uint64_t dropped, reported;
	bool grave, stopping, has_ended, abandoned;
	enum log_format format;
	char program[64];
};

/* A log that any thread may write to is one of a process: this is its state. */
static struct writer *writer;
static pthread_rwlock_t writer_lock = PTHREAD_RWLOCK_INITIALIZER;
static atomic_int level_limit = LOG_INFO;
static atomic_uint_fast64_t dropped_total;

void log_set_level(int level)
{
	level_limit = level;
}

uint64_t log_dropped(void)
{
	return dropped_total;
}

static void free_writer(struct writer *w)
{
	for (struct log_line *line; (line = w->first) != NULL; free(line))
		w->first = line->next;
	pthread_cond_destroy(&w->ended);
	pthread_cond_destroy(&w->wanted);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

static void report_dropped(struct writer *w, uint64_t count)
{
	char number[24];
	snprintf(number, sizeof number, "%llu", (unsigned long long)count);
	const struct log_field fields[] = { { "count", number }, { 0 } };
	char text[96];
	snprintf(text, sizeof text, "%s log lines were dropped because the log was not taken in time", number);
	struct log_line *line = log_line_new(LOG_WARNING, "log.dropped", fields, text);
	if (line != NULL)
		log_line_write(line, w->format, w->program);
	free(line);
}

/* Writes what is queued, without the mutex around the sink. */
static void write_queued(struct writer *w)
{
	struct log_line *line;
	while (!w->abandoned && (line = w->first) != NULL) {
		if ((w->first = line->next) == NULL)
			w->last = &w->first;
		pthread_mutex_unlock(&w->mutex);
		log_line_write(line, w->format, w->program);
		free(line);
		pthread_mutex_lock(&w->mutex);
		w->queued--;
	}
	uint64_t count = w->dropped - w->reported;
	if (count == 0 || w->abandoned)
		return;
	w->reported = w->dropped;
	pthread_mutex_unlock(&w->mutex);
	report_dropped(w, count);
	pthread_mutex_lock(&w->mutex);
}

/* From the first line on a few more are awaited, so that a busy program is not interrupted for each; a grave one is written at once. */
static void gather(struct writer *w)
{
	struct timespec limit;
	while (w->first == NULL && !w->stopping)
		pthread_cond_wait(&w->wanted, &w->mutex);
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_nsec += GATHER_NS;
	limit.tv_sec += limit.tv_nsec / 1000000000;
	limit.tv_nsec %= 1000000000;
	while (!w->grave && !w->stopping)
		if (pthread_cond_timedwait(&w->wanted, &w->mutex, &limit) != 0)
			break;
	w->grave = false;
}

static void *run_writer(void *arg)
{
	struct writer *w = arg;
	pthread_mutex_lock(&w->mutex);
	while (!w->stopping || (w->first != NULL && !w->abandoned)) {
		gather(w);
		write_queued(w);
	}
	w->has_ended = true;
	bool abandoned = w->abandoned;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->mutex);
	if (abandoned)
		free_writer(w);
	return NULL;
}

static struct writer *new_writer(const char *program, enum log_format format)
{
	struct writer *w = calloc(1, sizeof *w);
	if (w == NULL)
		return NULL;
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->wanted, &monotonic);
	pthread_cond_init(&w->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	w->last = &w->first;
	w->format = format == LOG_FORMAT_AUTO ? log_line_auto_format() : format;
	snprintf(w->program, sizeof w->program, "%s", program);
	return w;
}

/* Nobody waits for the thread by joining it: one that hangs could not be joined. */
static bool start_thread(struct writer *w)
{
	pthread_t thread;
	pthread_attr_t detached;
	sigset_t all, before;
	sigfillset(&all);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	bool started = pthread_create(&thread, &detached, run_writer, w) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&detached);
	return started;
}

void log_start(const char *program, enum log_format format, int level)
{
	log_stop();
	log_set_level(level);
	struct writer *w = new_writer(program, format);
	if (w == NULL)
		return;
	if (!start_thread(w)) {
		free_writer(w);
		return;
	}
	pthread_rwlock_wrlock(&writer_lock);
	writer = w;
	pthread_rwlock_unlock(&writer_lock);
}

void log_stop(void)
{
	pthread_rwlock_wrlock(&writer_lock);
	struct writer *w = writer;
	writer = NULL;
	pthread_rwlock_unlock(&writer_lock);
	if (w == NULL)
		return;
	struct timespec limit;
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_sec += STOP_LIMIT_S;
	pthread_mutex_lock(&w->mutex);
	w->stopping = true;
	pthread_cond_signal(&w->wanted);
	while (!w->has_ended)
		if (pthread_cond_timedwait(&w->ended, &w->mutex, &limit) != 0)
			break;
	bool ended = w->has_ended;
	w->abandoned = !ended;
	pthread_mutex_unlock(&w->mutex);
	if (ended)
		free_writer(w);
}

static bool enqueue(struct writer *w, struct log_line *line)
{
	pthread_mutex_lock(&w->mutex);
	bool fits = w->queued < QUEUE_LIMIT;
	if (fits) {
		bool grave = line->level <= LOG_WARNING;
		if (w->first == NULL || grave)
			pthread_cond_signal(&w->wanted);
		w->grave |= grave;
		w->queued++;
		*w->last = line;
		w->last = &line->next;
	} else {
		w->dropped++;
		dropped_total++;
	}
	pthread_mutex_unlock(&w->mutex);
	return fits;
}

void log_event(int level, const char *event, const struct log_field *fields, const char *format, ...)
{
	if (level > level_limit)
		return;
	char text[LOG_TEXT_LIMIT + 1];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	struct log_line *line = log_line_new(level, event, fields, text);
	if (line == NULL) {
		dropped_total++;
		return;
	}
	pthread_rwlock_rdlock(&writer_lock);
	bool queued = writer != NULL && enqueue(writer, line);
	bool direct = writer == NULL;
	pthread_rwlock_unlock(&writer_lock);
	if (direct)
		log_line_write(line, LOG_FORMAT_TEXT, "");
	if (!queued)
		free(line);
}

bool log_allowed(struct log_budget *budget)
{
	int64_t now = clock_monotonic_us(), earned = (now - budget->since_us) / BUDGET_LINE_US;
	if (earned > 0) {
		budget->since_us = now;
		budget->spent = earned >= budget->spent ? 0 : budget->spent - (unsigned)earned;
	}
	if (budget->spent >= BUDGET_LINES) {
		budget->withheld++;
		return false;
	}
	budget->spent++;
	if (budget->withheld)
		log_event(LOG_NOTICE, "log.withheld", NULL, "%u lines like the following were left out", budget->withheld);
	budget->withheld = 0;
	return true;
}
