"""The page that shows a run: plots and one self-contained HTML file. Needs the extra `report`."""
