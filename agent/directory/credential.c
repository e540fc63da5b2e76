#include "agent/directory/credential.h"

enum status credential_read(struct credential *credential)
{
	struct secret fresh = SECRET_EMPTY;
	if (credential->file == NULL) {
		return STATUS_OK;
	}
	enum status status = secret_read_file(credential->file, &fresh);
	if (status == STATUS_OK && fresh.size == 0) {
		secret_wipe(&fresh);
		status = STATUS_LOCAL_INPUT;
	}
	if (status == STATUS_OK) {
		secret_move(&credential->password, &fresh);
	}
	return status;
}

void credential_retry(struct credential *credential)
{
	credential->stale = true;
	credential->blocked_until_us = 0;
}

enum credential_turn credential_take(struct credential *credential, int64_t now_us)
{
	if (now_us < credential->blocked_until_us) {
		return CREDENTIAL_BLOCKED;
	}
	if (credential->binds >= (credential->proven ? CREDENTIAL_BINDS_MAX : 1)) {
		return CREDENTIAL_WAIT;
	}
	if (credential->stale && credential_read(credential) == STATUS_OK) { /* else the old one is tried again */
		credential->stale = false;
	}
	credential->binds++;
	return CREDENTIAL_GO;
}

void credential_report(struct credential *credential, enum status status, int64_t now_us)
{
	credential->binds--;
	if (status == STATUS_OK) {
		credential->proven = true;
		credential->reason[0] = 0;
	} else if (status == STATUS_DIRECTORY_CREDENTIAL) {
		credential->proven = false;
		credential->stale = true;
		credential->blocked_until_us = now_us + (int64_t)CREDENTIAL_PAUSE_S * 1000000;
	}
}
