#include "agent/identity_store.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agent/key_file.h"
#include "base/crash.h"
#include "base/disk.h"
#include "base/log.h"

struct identity_waiter {
	struct identity_waiter *next;
	identity_done done;
	void *arg;
};

/* All that is to be on disk, apart from the identity, which may change while it is written. */
struct image {
	struct identity *identity;
	struct identity fresh;          /* comes in its place */
	identity_done done;             /* of that one */
	void *arg;
	char *folder;
	bool makes;                     /* a pair that comes next */
	struct key_file keys[2];        /* of a pair that has none yet */
	char *key_set, *json;           /* NULL: what is there stays */
	char kept[4 + IDENTITY_RETIRED][JOSE_KID_SIZE];
	enum status status;
	int error;
};

/* The image ------------------------------------------------------------------------------------------------------------------------------ */

static json_t *describe_retired(const struct identity *identity)
{
	json_t *array = json_array();
	for (size_t i = 0; i < IDENTITY_RETIRED; i++)
		if (identity->retired[i].key)
			json_array_append_new(array, json_pack("{s:s,s:I}", "decryption_key", jose_key_id(identity->retired[i].key), "until", (json_int_t)identity->retired[i].until));
	return array;
}

static const struct identity_pair *next_of(const struct identity *identity)
{
	return identity->making.signing ? &identity->making : &identity->next;
}

static char *describe(const struct identity *identity)
{
	const struct identity_pair *next = next_of(identity);
	json_t *json = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:o,s:o}", "agent_id", identity->agent_id, "instance_id", identity->instance_id, "issuer", identity->issuer, "name",
	                         identity->name, "signing_key", jose_key_id(identity->signing), "decryption_key", jose_key_id(identity->decryption), "made_at",
	                         (json_int_t)identity->made_at, "retired", describe_retired(identity), "root_key", jose_key_public_jwk(identity->root));
	if (json && next->signing)
		json_object_set_new(json, "next", json_pack("{s:s,s:s,s:I,s:b}", "signing_key", jose_key_id(next->signing), "decryption_key", jose_key_id(next->decryption),
		                                            "made_at", (json_int_t)next->made_at, "first", next->first));
	char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	return text;
}

static void list_kept(const struct identity *identity, char kept[4 + IDENTITY_RETIRED][JOSE_KID_SIZE])
{
	const struct identity_pair *next = next_of(identity);
	const struct jose_key *keys[4 + IDENTITY_RETIRED] = { identity->signing, identity->decryption, next->signing, next->decryption };
	for (size_t i = 0; i < IDENTITY_RETIRED; i++)
		keys[4 + i] = identity->retired[i].key;
	for (size_t i = 0; i < 4 + IDENTITY_RETIRED; i++)
		snprintf(kept[i], JOSE_KID_SIZE, "%s", keys[i] ? jose_key_id(keys[i]) : "");
}

static void destroy_others(const char *folder, char kept[4 + IDENTITY_RETIRED][JOSE_KID_SIZE])
{
	const char *kids[4 + IDENTITY_RETIRED];
	for (size_t i = 0; i < 4 + IDENTITY_RETIRED; i++)
		kids[i] = kept[i][0] ? kept[i] : NULL;
	key_file_keep_only(folder, kids, 4 + IDENTITY_RETIRED);
}

void identity_store_tidy(const struct identity *identity)
{
	char kept[4 + IDENTITY_RETIRED][JOSE_KID_SIZE];
	list_kept(identity, kept);
	destroy_others(identity->folder, kept);
}

static void free_image(struct image *image)
{
	for (size_t i = 0; i < 2; i++)
		key_file_clear(&image->keys[i]);
	free(image->folder);
	free(image->key_set);
	free(image->json);
	free(image);
}

static enum status fill(struct image *image, struct identity *of, const struct jose_key *signing, const struct jose_key *decryption)
{
	if (!of->folder)
		return STATUS_OK; /* nothing is written */
	list_kept(of, image->kept);
	image->folder = strdup(of->folder);
	image->json = describe(of);
	image->key_set = of->key_set_unwritten ? strdup(of->key_set_jws) : NULL;
	if (!image->folder || !image->json || (of->key_set_unwritten && !image->key_set))
		return STATUS_AGENT_INTERNAL;
	of->key_set_unwritten = false;
	enum status status = signing ? key_file_prepare(of->folder, signing, &of->wrap_key, &image->keys[0]) : STATUS_OK;
	return status == STATUS_OK && decryption ? key_file_prepare(of->folder, decryption, &of->wrap_key, &image->keys[1]) : status;
}

/* On the worker -------------------------------------------------------------------------------------------------------------------------- */

static enum status write_text(const char *folder, const char *name, const char *text)
{
	char path[PATH_MAX];
	if (!text)
		return STATUS_OK;
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return jose_file_write(path, bytes_of_string(text));
}

/* identity.json behind all that it names, and before what it does not name any more goes. */
static void write_image(void *arg)
{
	struct image *image = arg;
	enum status status = image->status;
	errno = 0;
	for (size_t i = 0; status == STATUS_OK && i < 2; i++)
		status = key_file_write(&image->keys[i]);
	if (image->makes)
		CRASH_POINT(KEYS_MADE);
	if (status == STATUS_OK)
		status = write_text(image->folder, "key-set.jws", image->key_set);
	if (status == STATUS_OK)
		status = write_text(image->folder, "identity.json", image->json);
	image->error = status == STATUS_LOCAL_SYSTEM ? errno : 0;
	image->status = status;
	if (!image->makes)
		CRASH_POINT(KEYS_REPLACED);
	if (status == STATUS_OK && image->folder)
		destroy_others(image->folder, image->kept);
}

/* On the loop ---------------------------------------------------------------------------------------------------------------------------- */

static void run_waiters(struct identity_waiter *waiters, enum status status)
{
	for (struct identity_waiter *next; waiters; waiters = next) {
		next = waiters->next;
		waiters->done(status, waiters->arg);
		free(waiters);
	}
}

static void submit(struct worker *worker, struct image *image, void (*ended)(void *arg))
{
	enum status status = worker ? worker_submit(worker, write_image, ended, image) : STATUS_OK;
	if (worker && status == STATUS_OK)
		return;
	if (status != STATUS_OK)
		image->status = status;
	write_image(image);
	ended(image);
}

static void write_now(struct identity *identity);

static void settle_making(struct identity *identity, enum status status)
{
	if (status != STATUS_OK) {
		identity_pair_clear(&identity->making);
		return;
	}
	identity->next = identity->making;
	memset(&identity->making, 0, sizeof identity->making);
}

static void end_write(void *arg)
{
	struct image *image = arg;
	struct identity *identity = image->identity;
	struct identity_waiter *waiters = identity->store.flying;
	enum status status = image->status;
	identity->store.flying = NULL;
	identity->store.writing = false;
	identity->unwritten = status != STATUS_OK;
	identity->store.error = image->error;
	if (status != STATUS_OK && image->key_set)
		identity->key_set_unwritten = true;
	if (!identity->store.again)
		identity->turn_unwritten = false;
	if (image->makes)
		settle_making(identity, status);
	free_image(image);
	run_waiters(waiters, status);
	if (identity->store.again)
		write_now(identity);
}

static void write_now(struct identity *identity)
{
	identity->store.again = identity->store.writing || identity->store.replacing;
	if (identity->store.again)
		return;
	struct image *image = calloc(1, sizeof *image);
	if (!image) {
		/* Nothing is under way: the next minute tries again. */
		struct identity_waiter *waiters = identity->store.waiting;
		identity->store.waiting = NULL;
		identity->unwritten = true;
		identity_pair_clear(&identity->making);
		run_waiters(waiters, STATUS_AGENT_INTERNAL);
		return;
	}
	identity->store.writing = true;
	identity->store.flying = identity->store.waiting;
	identity->store.waiting = NULL;
	image->identity = identity;
	image->makes = identity->making.signing != NULL;
	image->status = fill(image, identity, identity->making.signing, identity->making.decryption);
	submit(identity->store.worker, image, end_write);
}

void identity_save(struct identity *identity, identity_done done, void *arg)
{
	struct identity_waiter **place = &identity->store.waiting;
	while (*place && ((*place)->done != done || (*place)->arg != arg))
		place = &(*place)->next;
	struct identity_waiter *waiter = *place ? *place : malloc(sizeof *waiter);
	if (!*place && waiter)
		*waiter = (struct identity_waiter){ .done = done, .arg = arg };
	*place = waiter;
	write_now(identity);
	if (!waiter)
		done(STATUS_AGENT_INTERNAL, arg);
}

static void end_replacing(void *arg)
{
	struct image *image = arg;
	struct identity *identity = image->identity;
	enum status status = image->status;
	identity->store.replacing = false;
	identity->store.error = image->error;
	if (status == STATUS_OK) {
		struct identity_waiter *waiters = identity->store.waiting;
		image->fresh.store.worker = identity->store.worker;
		identity->store.waiting = NULL;
		identity_clear(identity);
		*identity = image->fresh;
		run_waiters(waiters, STATUS_LOCAL_INPUT);
	} else {
		identity_clear(&image->fresh);
		/* Any of its files may be there by now. */
		identity->unwritten = identity->enrolled;
		identity->key_set_unwritten = identity->key_set_jws != NULL;
		if (identity->store.again)
			write_now(identity);
	}
	image->done(status, image->arg);
	free_image(image);
}

void identity_replace(struct identity *identity, struct identity *take_fresh, identity_done done, void *arg)
{
	struct image *image = identity->store.replacing ? NULL : calloc(1, sizeof *image);
	if (!image) {
		identity_clear(take_fresh);
		done(STATUS_AGENT_INTERNAL, arg);
		return;
	}
	identity->store.replacing = true;
	*image = (struct image){ .identity = identity, .fresh = *take_fresh, .done = done, .arg = arg };
	image->status = fill(image, &image->fresh, image->fresh.signing, image->fresh.decryption);
	submit(identity->store.worker, image, end_replacing);
}

void identity_describe_unwritten(const struct identity *identity, char *text, size_t capacity)
{
	int error = identity->store.error;
	snprintf(text, capacity, "%s cannot be written to: %s%s", identity->folder, error ? strerror(error) : "out of memory", disk_advice(error));
}
