//! A file of the repository as its commits left it, oldest first: taken from git, if there is a history.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A file as one commit left it.
pub struct Kept {
    /// The short name of the commit; nothing for what is not committed.
    pub commit: String,
    pub date: String,
    pub subject: String,
    pub text: String,
}

/// A file over its commits.
pub struct History {
    pub kept: Vec<Kept>,
    /// Why it is not the whole history.
    pub note: Option<String>,
}

/// What git says in this folder, if it has something to say.
fn git(root: &Path, words: &[&str]) -> Option<String> {
    let said = Command::new("git").arg("-C").arg(root).env("TZ", "UTC").args(words).output().ok()?;
    if said.status.success() { String::from_utf8(said.stdout).ok() } else { None }
}

/// The day and the minute of a commit, in the form of files of figures; none if it is not in the history here.
pub fn date_of(root: &Path, commit: &str) -> Option<String> {
    // What a file says is no option of git.
    if commit.len() < 4 || !commit.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let date = git(root, &["show", "-s", "--format=%cd", DATE, &format!("{commit}^{{commit}}")])?;
    Some(date.trim().to_owned()).filter(|date| !date.is_empty())
}

const DATE: &str = "--date=format-local:%Y-%m-%d %H:%M UTC";

/// The file at `path` over its commits, and as it is now.
pub fn of(root: &Path, path: &str) -> History {
    let log = git(root, &["log", "--follow", "--format=%x01%h%x09%cd%x09%s", DATE, "--name-only", "--", path])
        .unwrap_or_default();
    // A commit is a line, an empty one, and the name that the file had then.
    let mut kept: Vec<Kept> = log.split('\u{1}').skip(1).filter_map(|entry| kept(root, entry)).collect();
    kept.reverse();
    let note = if kept.is_empty() {
        Some(format!("There is no history of {path} here, only the file as it is."))
    } else {
        let shallow = git(root, &["rev-parse", "--is-shallow-repository"]).is_some_and(|said| said.trim() == "true");
        shallow.then(|| format!("The history of {path} is cut off here: this is a shallow clone."))
    };
    if let Ok(text) = fs::read_to_string(root.join(path))
        && kept.last().is_none_or(|last| last.text != text)
    {
        let (commit, date, subject) = (String::new(), String::new(), "not committed".to_owned());
        kept.push(Kept { commit, date, subject, text });
    }
    History { kept, note }
}

/// What a commit of the log left of the file.
fn kept(root: &Path, entry: &str) -> Option<Kept> {
    let mut lines = entry.lines();
    let mut words = lines.next()?.splitn(3, '\t');
    let mut word = || words.next().map(str::to_owned);
    let (commit, date, subject) = (word()?, word()?, word()?);
    let name = lines.find(|line| !line.is_empty())?;
    let text = git(root, &["show", &format!("{commit}:{name}")])?;
    Some(Kept { commit, date, subject, text })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder of its own, outside of any repository, which is gone afterwards.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("greenling-site-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder is made");
            Folder(path)
        }

        /// Writes a file and, in a repository, commits it.
        pub fn commit(&self, path: &str, text: &str, subject: &str) {
            let file = self.0.join(path);
            fs::create_dir_all(file.parent().expect("it has one")).expect("a folder is made");
            fs::write(file, text).expect("a file is written");
            self.git(&["add", "-A"]);
            self.git(&["commit", "--quiet", "-m", subject]);
        }

        /// Lets git do something, without the settings of this machine.
        pub fn git(&self, words: &[&str]) {
            let config = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
            let mut git = Command::new("git");
            git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").arg("-C").arg(&self.0);
            let done = git.args(config).args(words).status();
            assert!(done.expect("there is git").success(), "{words:?}");
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_followed_through_its_commits_and_names() {
        let folder = Folder::new("follow");
        folder.git(&["init", "--quiet"]);
        folder.commit("old.txt", "a long line that stays\none\n", "first");
        folder.git(&["mv", "old.txt", "new.txt"]);
        folder.commit("other.txt", "x", "rename");
        folder.commit("new.txt", "a long line that stays\ntwo\n", "a \"second\"");
        fs::write(folder.0.join("new.txt"), "three").expect("a file is written");
        let history = of(&folder.0, "new.txt");
        let said: Vec<_> = history.kept.iter().map(|kept| (&kept.subject[..], kept.text.lines().last())).collect();
        let expected = [("first", "one"), ("rename", "one"), ("a \"second\"", "two"), ("not committed", "three")]
            .map(|(a, b)| (a, Some(b)));
        assert_eq!((said, history.note), (expected.to_vec(), None));
        let first = &history.kept[0];
        assert_eq!(date_of(&folder.0, &first.commit).as_ref(), Some(&first.date));
        assert_eq!((date_of(&folder.0, "--all"), date_of(&folder.0, "0000000")), (None, None));
    }

    #[test]
    fn without_a_history_there_is_the_file_and_a_note() {
        let folder = Folder::new("none");
        fs::write(folder.0.join("a.txt"), "one").expect("a file is written");
        let history = of(&folder.0, "a.txt");
        assert_eq!((history.kept.len(), &history.kept[0].text[..]), (1, "one"));
        assert_eq!(history.note.as_deref(), Some("There is no history of a.txt here, only the file as it is."));
        assert!(of(&folder.0, "b.txt").kept.is_empty());
    }
}
