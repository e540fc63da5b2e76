/* standalone: runs a fuzzer's function over its corpus as an ordinary test: every file as it is, cut at some lengths up to 512, and with some bits of its first 64 bytes flipped. Where
 * CORPUS_AS_IS is set (tests/fuzz/coverage), only as it is. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_VARIANTS = 40 };

/* A heap block of the exact size, so that ASan sees every byte read beyond it. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

/* A file's share of variants is bounded: what starts a server or opens a database takes a millisecond each. */
static void run_variants(uint8_t *data, size_t size)
{
	size_t cuts = size < 512 ? size : 512, bits = size < 64 ? size * 8 : 64 * 8;
	size_t cut_step = 1 + cuts / MAX_VARIANTS, bit_step = 1 + bits / MAX_VARIANTS;
	run(data, size);
	if (getenv("CORPUS_AS_IS") != NULL)
		return;
	for (size_t cut = size % cut_step; cut < cuts; cut += cut_step)
		run(data, cut);
	for (size_t bit = size % bit_step; bit < bits; bit += bit_step) {
		data[bit / 8] ^= 1u << bit % 8;
		run(data, size);
		data[bit / 8] ^= 1u << bit % 8;
	}
}

int main(int argc, char **argv)
{
	unsigned files = 0;
	for (int i = 1; i < argc; i++) {
		DIR *folder = opendir(argv[i]);
		if (!folder) {
			perror(argv[i]);
			return 1;
		}
		for (struct dirent *entry; (entry = readdir(folder));) {
			char path[4096];
			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
			FILE *file = fopen(path, "rb");
			static uint8_t data[1 << 20];
			if (!file) {
				perror(path);
				return 1;
			}
			size_t size = fread(data, 1, sizeof data, file);
			fclose(file);
			run_variants(data, size);
			files++;
		}
		closedir(folder);
	}
	printf("%u corpus files\n", files);
	return files == 0;
}
